"""Which differences of acquisition withhold a change, which widen its limits, which are only told."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from config.trial_plans import Acceptance
from processing.comparability import compare_acquisitions
from processing.visits import Acquisition

BASELINE = Acquisition(
    manufacturer="GE MEDICAL SYSTEMS",
    model="DISCOVERY MR750",
    device_serial="A123",
    software_versions="27 LX MR Software release:DV26.0",
    receive_coil="8US TORSOPA",
    protocol="ge-mapss",
    field_strength_t=3.0,
    spin_lock_hz=300.0,
    t1rho_times_ms=(0.0, 10.0, 40.0, 80.0),
    t2_times_ms=(0.0, 12.847, 25.695, 51.39),
    repetition_time_ms=5.2,
    pixel_bandwidth_hz=488.0,
    matrix=(256, 256),
    pixel_spacing_mm=(0.78125, 0.78125),
    slice_thickness_mm=4.0,
    slice_spacing_mm=4.0,
    n_slices=12,
    slice_normal=(-1.0, 0.0, 0.0),
    acquired_at=datetime(2026, 1, 12, 9, 30),
)
RULES = Acceptance()


def tilted(degrees):
    angle = np.deg2rad(degrees)
    return (-float(np.cos(angle)), float(np.sin(angle)), 0.0)


def compare(**changes):
    return compare_acquisitions(BASELINE, replace(BASELINE, **changes), RULES)


def test_the_same_acquisition_on_another_day_differs_in_nothing():
    assert compare(acquired_at=datetime(2026, 7, 1, 10, 45)) == ()


@pytest.mark.parametrize(
    "change",
    [
        {"t1rho_times_ms": (0.0, 40.0, 80.0, 120.0)},
        {"t1rho_times_ms": (0.0, 10.0, 40.0)},
        {"t2_times_ms": (0.0, 12.8, 25.7, 54.7)},
        {"t2_times_ms": ()},
        {"spin_lock_hz": 500.0},
        {"protocol": "ge-t1rho-fse"},
        {"field_strength_t": 1.5},
        {"n_slices": 2},
        {"slice_normal": (0.0, 0.0, 1.0)},
    ],
    ids=lambda change: f"{next(iter(change))}={next(iter(change.values()))}",
)
def test_these_withhold_the_change(change):
    (found,) = [one for one in compare(**change) if one.hard]
    assert found.what in change
    assert found.text.endswith("; the change is not judged")


@pytest.mark.parametrize(
    "change",
    [
        {"device_serial": "B9"},
        {"software_versions": "29"},
        {"receive_coil": "HNS"},
        {"model": "SIGNA Premier"},
        {"manufacturer": "SIEMENS"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_these_widen_the_limits(change):
    (found,) = compare(**change)
    assert (found.hard, found.widens) == (False, True)
    assert found.text.endswith("; the limits are those of another scanner")
    assert found.visit == next(iter(change.values()))


@pytest.mark.parametrize(
    "change",
    [
        {"pixel_spacing_mm": (0.78125, 0.9)},
        {"slice_thickness_mm": 5.0},
        {"slice_spacing_mm": 4.5},
        {"repetition_time_ms": 6.0},
        {"pixel_bandwidth_hz": 244.0},
        {"n_slices": 10},
        {"slice_normal": tilted(7)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_these_are_told_and_change_nothing(change):
    (found,) = compare(**change)
    assert (found.hard, found.widens) == (False, False)


def test_another_matrix_on_the_same_field_of_view_is_told_once():
    (found,) = compare(matrix=(512, 512), pixel_spacing_mm=(0.390625, 0.390625))
    assert (found.what, found.baseline, found.visit) == ("matrix", "256 x 256", "512 x 512")


def test_rounded_times_and_a_small_tilt_are_the_same():
    assert compare(t2_times_ms=(0.0, 12.8, 25.7, 51.4), slice_normal=tilted(4), field_strength_t=2.89) == ()


def test_a_stack_that_runs_the_other_way_is_the_same_cut():
    assert compare(slice_normal=(1.0, 0.0, 0.0)) == ()


@pytest.mark.parametrize(
    ("hour", "minute", "is_told"), [(11, 30, False), (11, 31, True), (7, 29, True), (18, 0, True), (8, 0, False)]
)
def test_more_than_two_hours_on_the_clock_are_told_in_words(hour, minute, is_told):
    found = compare(acquired_at=datetime(2026, 7, 1, hour, minute))
    assert [one.what for one in found] == ["acquired_at"] * is_told
    if (hour, minute) == (18, 0):
        assert found[0].text == (
            "Time of day: 09:30 at the baseline, 18:00 here, 8.5 h apart (at most 2 h is planned); discs lose water"
            " during the day"
        )


def test_the_clock_is_round():
    late = replace(BASELINE, acquired_at=datetime(2026, 1, 12, 23, 30))
    early = replace(BASELINE, acquired_at=datetime(2026, 7, 1, 0, 30))
    assert compare_acquisitions(late, early, RULES) == ()


SILENT = {
    "device_serial": "",
    "software_versions": "",
    "receive_coil": "",
    "protocol": "",
    "field_strength_t": None,
    "spin_lock_hz": None,
    "matrix": None,
    "slice_thickness_mm": None,
    "n_slices": None,
    "slice_normal": None,
    "acquired_at": None,
}


@pytest.mark.parametrize("name", SILENT)
def test_what_only_one_header_tells_is_not_known_and_never_equal(name):
    for before, now, where in (({}, SILENT, "here"), (SILENT, {}, "at the baseline")):
        one, other = (replace(BASELINE, **{name: side[name]} if side else {}) for side in (before, now))
        found = [each for each in compare_acquisitions(one, other, RULES) if each.what == name]
        assert len(found) == 1
        assert f"not known {where}, so that it cannot be compared" in found[0].text
        assert not found[0].hard
        assert found[0].widens is (name in ("device_serial", "software_versions", "receive_coil"))


def test_what_neither_header_tells_is_told_and_does_not_widen():
    silent = replace(BASELINE, receive_coil="")
    (found,) = compare_acquisitions(silent, silent, RULES)
    assert (found.text, found.widens) == (
        "Receive coil: not known at either visit, so that it cannot be compared",
        False,
    )


def test_nothing_at_all_is_known_of_an_anonymised_exam_and_nothing_breaks():
    found = compare_acquisitions(Acquisition(), Acquisition(), RULES)
    assert all("not known" in one.text for one in found)
    assert not any(one.hard or one.widens for one in found)


def test_spacing_and_case_of_a_text_do_not_make_another_scanner():
    assert compare(software_versions="27  LX MR Software Release:DV26.0") == ()


def test_hard_differences_come_first():
    found = compare(device_serial="B", n_slices=1, slice_thickness_mm=8.0, slice_spacing_mm=8.0)
    assert [one.what for one in found] == ["n_slices", "device_serial", "slice_thickness_mm", "slice_spacing_mm"]
