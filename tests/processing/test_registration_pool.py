"""Processes that die, discs that fail, parents that are killed."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from processing.elastix_parameters import registration_parameters
from processing.refusal import ReasonCode
from processing.registration import DiscTask, RegisteredSignal, RegistrationFailed, register_disc
from processing.registration_pool import RegistrationPool
from processing.results import Alignment, AtlasDisc, Level

AFFINE = np.array([[-4.0, 0, 0, 0], [0, 0, 0.8, 0], [0, -0.8, 0, 0], [0, 0, 0, 1]])


def task(level, mark=None):
    """``mark`` tells the functions below, in the other process, what to do; it travels as the preset."""
    rows, columns = np.mgrid[-12:13, -25:26]
    mask = (((columns / 20) ** 2 + (rows / 7) ** 2) <= 1).astype(np.uint8)[None]
    return DiscTask(mask, AFFINE, (), AtlasDisc(level, mask, mask, AFFINE), preset=mark or "fast")


def answer(one):
    jacobian = np.ones(one.mask.shape, np.float32)
    alignment = Alignment(
        one.atlas.level, (0.0, 0.0, 0.0), (), jacobian, 1.0, 1.0, 0.0, 1.0, 0, "fast", os.getpid(), 0.0
    )
    return RegisteredSignal(alignment, one.atlas, {})


def ready():
    """Instead of loading elastix."""


def behave(one):
    """Does what the task's mark says: the path of a file that remembers the first try, 'die' or 'fail'."""
    if one.preset == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if one.preset == "fail":
        raise RegistrationFailed(one.atlas.level, "too many samples map outside", "elastix log")
    if one.preset == "bug":
        raise KeyError("a mistake in our code")
    if one.preset == "hang":
        time.sleep(600)
    if one.preset.startswith("/"):
        first_try = not Path(one.preset).exists()
        Path(one.preset).touch()
        if first_try:
            os.kill(os.getpid(), signal.SIGSEGV)
    return answer(one)


def hang():
    """An elastix that never finishes loading."""
    time.sleep(600)


@pytest.fixture(scope="module")
def pool():
    with RegistrationPool(2, align_one=behave, prepare=ready) as opened:
        yield opened


def levels(registered):
    return [one.alignment.level for one in registered]


def test_discs_come_back_in_order_from_other_processes(pool):
    registered, reasons = pool.align([task(level) for level in Level])
    assert levels(registered) == list(Level)
    assert reasons == ()
    assert os.getpid() not in {one.alignment.seed for one in registered}


def test_a_disc_that_fails_is_a_reason_and_the_others_are_kept(pool):
    registered, (reason,) = pool.align([task(Level.L5S1), task(Level.L4L5, "fail"), task(Level.L3L4)])
    assert levels(registered) == [Level.L5S1, Level.L3L4]
    assert reason.code == ReasonCode.REGISTRATION_POOR
    assert reason.detail == (
        "registration failed: L4L5: too many samples map outside; elastix' log ends with: elastix log"
    )


def test_a_crash_is_tried_again_and_costs_nothing(pool, tmp_path):
    registered, reasons = pool.align([task(Level.L5S1), task(Level.L4L5, str(tmp_path / "tried")), task(Level.L3L4)])
    assert levels(registered) == [Level.L5S1, Level.L4L5, Level.L3L4]
    assert reasons == ()


def test_a_disc_that_always_crashes_is_a_reason_and_the_pool_lives_on(pool):
    registered, (reason,) = pool.align([task(Level.L5S1), task(Level.L4L5, "die"), task(Level.L3L4)])
    assert levels(registered) == [Level.L5S1, Level.L3L4]
    assert "L4L5: the registration process died twice" in reason.detail
    assert levels(pool.align([task(Level.L1L2)])[0]) == [Level.L1L2]


def test_a_mistake_in_our_code_is_not_swallowed(pool):
    with pytest.raises(KeyError, match="a mistake"):
        pool.align([task(Level.L5S1, "bug"), task(Level.L4L5)])
    assert levels(pool.align([task(Level.L1L2)])[0]) == [Level.L1L2]  # the pool is of use after it


def test_a_process_killed_while_idle_is_replaced(pool):
    (before,), _ = pool.align([task(Level.L5S1)])
    os.kill(before.alignment.seed, signal.SIGKILL)
    (after,), reasons = pool.align([task(Level.L5S1)])
    assert reasons == ()
    assert after.alignment.seed != before.alignment.seed


def test_a_disc_that_hangs_is_killed_and_costs_no_other_disc():
    with RegistrationPool(2, deadline_s=6.0, align_one=behave, prepare=ready) as pool:
        (first,), _ = pool.align([task(Level.L5S1)])
        started_s = time.monotonic()
        registered, (reason,) = pool.align([task(Level.L4L5, "hang"), task(Level.L3L4), task(Level.L2L3)])
        assert time.monotonic() - started_s < 30
        assert levels(registered) == [Level.L3L4, Level.L2L3]
        assert reason.code == ReasonCode.REGISTRATION_POOR
        assert reason.detail == "registration failed: L4L5: killed after 6 s of registration, the deadline"
        assert not psutil.pid_exists(first.alignment.seed)  # the first process had the disc
        assert levels(pool.align([task(Level.L1L2)])[0]) == [Level.L1L2]


def test_an_elastix_that_never_loads_is_a_reason():
    with RegistrationPool(1, deadline_s=1.0, align_one=behave, prepare=hang) as pool:
        registered, (reason,) = pool.align([task(Level.L4L5)])
    assert registered == ()
    assert reason.detail == "registration failed: L4L5: killed after 1 s of loading elastix, the deadline"


PARENT = """
import sys, time
from multiprocessing import active_children
from test_registration_pool import behave, ready
from processing.registration_pool import RegistrationPool

if __name__ == "__main__":
    pool = RegistrationPool(2, align_one=behave, prepare=ready)
    print(*[child.pid for child in active_children()], flush=True)
    time.sleep(60)
"""


def test_no_process_outlives_a_killed_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    search = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": search}
    ) as parent:
        assert parent.stdout is not None
        children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(children) == 2
        time.sleep(3)  # until they are past their start
        parent.kill()
        parent.wait()
    _, alive = psutil.wait_procs(children, timeout=15)
    assert alive == []


@pytest.mark.slow
def test_a_real_process_gives_the_same_bits_as_this_one_and_tells_what_elastix_said():
    one = task(Level.L4L5)
    affine, bspline = registration_parameters(2, "fast", 1)
    impossible = replace(task(Level.L3L4), stages=(affine | {"Metric": ("NoSuchMetric",)}, bspline))
    with RegistrationPool(1) as real:
        (elsewhere,), (reason,) = real.align([impossible, one])
    here = register_disc(one.mask, one.affine, one.atlas)
    assert reason.code == ReasonCode.REGISTRATION_POOR
    assert reason.detail.startswith("registration failed: L3L4: ")
    assert "elastix' log ends with: " in reason.detail
    assert "NoSuchMetric" in reason.detail
    assert (elsewhere.alignment.jacobian == here.jacobian).all()
    assert elsewhere.alignment.transforms == here.transforms
