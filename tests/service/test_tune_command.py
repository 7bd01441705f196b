"""Tuning: resumable, honest about its costs, and what it writes can be used. elastix' part is played by a formula."""

import csv
from pathlib import Path

import numpy as np
import pytest

from processing.atlas import load_atlas
from processing.disc_pairs import hard_pairs
from processing.elastix_parameters import registration_parameters
from processing.registration import DiscTask, RegisteredSignal, RegistrationFailed
from processing.registration_pool import RegistrationPool
from processing.results import Alignment
from processing.tuning import tasks_of
from service import tuning
from service.cli import main
from service.tuning import TuningError, TuningLimits, best_trial, tune
from service.tuning_files import write_best, write_history

BASE = registration_parameters(2, "fast", 1)
PAIRS = hard_pairs(load_atlas(2), 3)


def formula(task: DiscTask) -> RegisteredSignal:
    """Best at a rigidity weight of 2; dearer with more iterations; folds below a weight of 0.3."""
    assert task.stages is not None
    bspline = task.stages[1]
    weight, iterations = float(bspline["Metric1Weight"][0]), int(bspline["MaximumNumberOfIterations"][0])
    alignment = Alignment(
        level=task.atlas.level,
        centroid_shift_mm=(0.0, 0.0, 0.0),
        transforms=(),
        jacobian=np.ones(task.atlas.mask.shape, np.float32),
        dice=0.98,
        dice_after_centroid=0.7,
        sd_jacobian=0.05 + abs(float(np.log(weight / 2))) / 10,
        min_jacobian=0.5,
        n_folded=int(weight < 0.3),
        preset="tuned",
        seed=1,
        cpu_s=iterations / 10,
    )
    return RegisteredSignal(alignment, task.atlas, {})


def fails(task: DiscTask) -> RegisteredSignal:
    raise RegistrationFailed(task.atlas.level, "elastix gave up")


def nothing() -> None:
    """Instead of loading elastix."""


@pytest.fixture(scope="module")
def pool():
    with RegistrationPool(1, align_one=formula, prepare=nothing) as opened:
        yield opened


def run(folder: Path, pool: RegistrationPool, trials: int, *, resume: bool = False, **limits: float):
    wanted = TuningLimits(trials, **{"max_cpu_s": 15.0, **limits})
    return tune(PAIRS, BASE, pool, folder, wanted, resume=resume, at_once=1, progress=lambda step, share: None)


def test_better_parameters_are_found_and_can_be_used(tmp_path, pool):
    history = run(tmp_path, pool, 25)
    best = best_trial(history)
    assert best is not None
    assert history[0].candidate.rigidity_weight == float(BASE[1]["Metric1Weight"][0])  # the preset comes first
    assert best.score.loss < history[0].score.loss - 0.02
    assert 1 < best.candidate.rigidity_weight < 4
    assert best.score.cpu_s <= 15
    write_history(tmp_path, history)
    with (tmp_path / "history.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 25
    assert float(rows[best.number]["rigidity_weight"]) == pytest.approx(best.candidate.rigidity_weight, rel=1e-4)
    assert (tmp_path / "history.png").stat().st_size > 10_000
    write_best(tmp_path, best, BASE, 2, "fast")
    _, bspline = registration_parameters(2, "fast", 1, tmp_path)
    assert float(bspline["Metric1Weight"][0]) == pytest.approx(best.candidate.rigidity_weight, rel=1e-3)


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, pool):
    first = run(tmp_path, pool, 3)
    again = run(tmp_path, pool, 5, resume=True)
    assert len(again) == 5
    assert again[:3] == first
    with pytest.raises(TuningError, match="--resume"):
        run(tmp_path, pool, 6)
    with pytest.raises(TuningError, match="other discs"):
        tune(PAIRS[:2], BASE, pool, tmp_path, TuningLimits(6, 15.0), resume=True, at_once=1, progress=print)


def test_a_run_stops_when_its_cpu_seconds_are_spent(tmp_path, pool):
    history = run(tmp_path, pool, 50, budget_cpu_s=60.0)
    spent_s = sum(one.score.cpu_s * one.n_discs for one in history)
    assert 60 <= spent_s < 60 + 3 * 20  # the trial that went over it was finished


def test_a_candidate_that_is_too_dear_or_folds_is_not_chosen(tmp_path, pool):
    history = run(tmp_path, pool, 20, max_cpu_s=5.0)
    assert any(one.too_dear for one in history)
    best = best_trial(history)
    assert best is None or best.score.cpu_s <= 5
    assert all(not one.is_eligible for one in history if one.candidate.rigidity_weight < 0.3)


class Hopeless:
    """A trial that did worse than the others on its first discs."""

    def report(self, value: float, step: int) -> None:
        assert value == pytest.approx(0.02 + 0.05)

    def should_prune(self) -> bool:
        return True


def test_a_candidate_that_does_worse_than_the_others_is_given_up_early(pool):
    affine, bspline = BASE
    tasks = tasks_of(PAIRS, (affine, bspline | {"Metric1Weight": ("2",)}))
    outcomes, pruned = tuning._run(Hopeless(), tasks, pool, at_once=2)
    assert (len(outcomes), pruned) == (2, True)


def test_discs_that_always_fail_are_no_result(tmp_path):
    with RegistrationPool(1, align_one=fails, prepare=nothing) as pool:
        assert best_trial(run(tmp_path, pool, 2)) is None


def test_without_optuna_it_says_what_to_install(tmp_path, pool, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(TuningError, match=r"pip install 'discnode\[tune\]'"):
        run(tmp_path, pool, 1)


def command(tmp_path: Path, *more: str) -> list[str]:
    return ["tune", "registration", "--dimension", "2", "--trials", "2", "--pairs", "2", "--out", str(tmp_path), *more]


def test_the_command_tunes_the_built_in_pairs(tmp_path, monkeypatch, capsys):
    def with_formula(processes: int, *, deadline_s: float) -> RegistrationPool:
        return RegistrationPool(1, deadline_s=deadline_s, align_one=formula, prepare=nothing)

    monkeypatch.setattr("processing.registration_pool.RegistrationPool", with_formula)
    assert main(command(tmp_path, "--builtin", "--max-cpu-s", "100")) == 0
    said = capsys.readouterr()
    assert "preset           L 0." in said.out
    assert "tune registration" in said.err
    assert {path.name for path in tmp_path.iterdir()} == {
        *("study.sqlite", "history.csv", "history.png", "affine_2d.txt", "bspline_fast_2d.txt")
    }
    assert main(command(tmp_path, "--builtin")) == 2
    assert "--resume" in capsys.readouterr().err


def test_a_folder_without_exams_is_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(command(tmp_path / "out", "--data", str(tmp_path / "empty"))) == 3
    assert "holds no annotated exam" in capsys.readouterr().err
    assert tuning.STUDY_FILE not in {path.name for path in tmp_path.rglob("*")}


@pytest.mark.parametrize("wrong", [("--pairs", "0"), ("--trials", "0"), ("--max-cpu-s", "0"), ("--processes", "-1")])
def test_numbers_that_make_no_sense_are_wrong_use(tmp_path, wrong, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(command(tmp_path, "--builtin", *wrong))
    assert stopped.value.code == 2
    assert wrong[0] in capsys.readouterr().err
