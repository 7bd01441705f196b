"""Visits of subjects from a table: who is in a model, of which group, and who counts as missing; maps in memory."""

import argparse
from pathlib import Path

import numpy as np
import pytest

from config.cohort_plans import CohortPlan
from processing.cohort.level_maps import LevelMaps
from processing.display import LEVEL_NAMES
from processing.results import Level, Quantity
from service.cohort import power_command, run_folder
from service.cohort.maps import CohortMaps, key_of
from service.cohort.model_report import targets_table
from service.cohort.models import check_models, run_models
from service.cohort.table import CohortError, CohortTable, Scan
from service.cohort.tables import write_summary

MODEL = {
    "name": "primary",
    "quantity": "T1rho",
    "baseline": "BL",
    "visits": ["M6", "M12"],
    "group": "arm",
    "reference": "placebo",
}
GAIN = {"BL": 0.0, "M6": 4.0, "M12": 9.0}


def rows_of_trial(n=24):
    """Every subject at three visits; every second is active."""
    arms = ("placebo", "active")
    return [
        {"subject": f"S{index}", "visit": visit, "arm": arms[index % 2], "centre": "north" if index % 3 else "south"}
        for index in range(n)
        for visit in GAIN
    ]


def table_of(rows):
    columns = tuple(name for name in rows[0] if name not in ("subject", "visit"))
    scans = (
        Scan(line, row["subject"], row["visit"], Path(f"/{line}"), {name: row[name] for name in columns})
        for line, row in enumerate(rows, start=2)
    )
    return CohortTable(tuple(scans), columns)


def maps_of(table, levels=(Level.L4L5,), empty=()):
    """Subjects differ by some ms, actives gain over the visits; of ``empty`` (subject, visit) no voxel is known."""
    rng = np.random.default_rng(3)
    regions = np.ones((1, 3, 4), np.uint8)
    of_subject = {one: 80 + 10 * rng.standard_normal() for one in dict.fromkeys(one.subject for one in table.scans)}
    found = {}
    for level in levels:
        values = np.array(
            [
                of_subject[one.subject]
                + 2 * rng.standard_normal()
                + GAIN[one.visit] * (one.values["arm"] == "active")
                + (np.nan if (one.subject, one.visit) in empty else 0.0)
                for one in table.scans
            ]
        )
        maps = np.repeat(values[:, None], regions.size, axis=1)
        found[level, Quantity.T1RHO] = LevelMaps(
            level, "T1rho", regions, (4.0, 1.0, 1.0), maps, tuple(key_of(one) for one in table.scans)
        )
    return CohortMaps(found, (), {})


def plan_of(*models, levels=("L4L5",), **more):
    content = {"name": "p", "table": "t.csv", "levels": levels, "quantities": ["T1rho"], "models": list(models)}
    return CohortPlan(**content, **more)


@pytest.mark.parametrize("word", ["NA", "nan", ".", "n/a", ""])
@pytest.mark.parametrize("column", ["arm", "centre"])
def test_a_word_for_nothing_is_no_group_and_no_site(word, column):
    rows = rows_of_trial()
    for row in rows:
        if row["subject"] in ("S4", "S9", "S14"):
            row[column] = word
    with pytest.raises(CohortError) as raised:
        check_models(plan_of(MODEL | {"site": True}, site="centre"), table_of(rows))
    lines = {14: "S4", 29: "S9", 44: "S14"}
    told = [f"primary at L4L5: line {line}: {column}: no value for {subject}" for line, subject in lines.items()]
    assert str(raised.value).split("\n") == told


def test_a_word_for_nothing_at_a_follow_up_is_not_another_group():
    rows = rows_of_trial()
    for row in rows:
        if row["visit"] != "BL":
            row["arm"] = "NA"
    check_models(plan_of(MODEL), table_of(rows))


def test_without_groups_several_levels_have_one_row_that_is_of_all(tmp_path):
    table = table_of(rows_of_trial(30))
    model = {"name": "course", "quantity": "T1rho", "baseline": "BL", "visits": ["M12"], "levels_as": "together"}
    levels = (Level.L4L5, Level.L5S1)
    (found,) = run_models(plan_of(model, levels=("L4L5", "L5S1")), table, maps_of(table, levels))
    (row,) = targets_table([found], 0.95).rows
    whole = next(one for one in found.contrasts if one.level == "")
    assert row.name == f"course, {LEVEL_NAMES[Level.L4L5]}, {LEVEL_NAMES[Level.L5S1]}"
    assert row.cells[:2] == ("mean, M12", f"{whole.estimate.estimate:.2f}")
    write_summary([], tmp_path / "summary.csv", 0.05, [found])
    assert f"mean, M12: {whole.estimate.estimate:.3g} ms" in (tmp_path / "summary.csv").read_text()


def test_of_three_groups_two_are_in_the_headline_and_the_summary(tmp_path):
    rows = rows_of_trial(36)
    for row in rows:
        row["arm"] = ("placebo", "active", "a zero dose")[int(row["subject"][1:]) % 3]
    table = table_of(rows)
    (found,) = run_models(plan_of(MODEL), table, maps_of(table))
    told = targets_table([found], 0.95)
    assert [row.cells[0] for row in told.rows] == ["a zero dose less placebo, M12", "active less placebo, M12"]
    assert "Holm: of one model, for its levels (each a model) and groups" in told.note
    write_summary([], tmp_path / "summary.csv", 0.05, [found])
    summary = (tmp_path / "summary.csv").read_text()
    assert "active less placebo, M12" in summary
    assert "a zero dose less placebo, M12" in summary
    assert "P by Holm" in summary


def test_who_has_no_baseline_is_missing_among_responders_and_counts_as_a_non_responder():
    rows = [row for row in rows_of_trial() if (row["subject"], row["visit"]) not in {("S1", "BL"), ("S3", "BL")}]
    for row in rows:
        if row["subject"] == "S1" and row["visit"] == "M6":
            row["arm"] = "NA"  # its group is known from M12
    table = table_of(rows)
    model = MODEL | {"responders": {"visit": "M12", "limit_ms": 6}}
    (found,) = run_models(plan_of(model), table, maps_of(table, empty={("S5", "BL"), ("S7", "M12")}))
    known, worst = (
        {one.group: (one.n, one.n_missing) for one in table.shares} | {"responders": table.shares[1].n_responders}
        for table in found.responders
    )
    assert known["active"] == (8, 4)  # S1, S3 and S5 without a baseline, S7 not there
    assert worst["active"] == (12, 4)
    assert known["placebo"] == worst["placebo"] == (12, 0)
    assert known["responders"] == worst["responders"]
    assert [one for one in found.left_out if "no scan" in one] == ["S1: no scan at BL", "S3: no scan at BL"]


def test_who_has_neither_a_baseline_nor_a_group_is_named():
    rows = [row for row in rows_of_trial() if (row["subject"], row["visit"]) != ("S1", "BL")]
    for row in rows:
        row["arm"] = "" if row["subject"] == "S1" else row["arm"]
    (note,) = check_models(plan_of(MODEL), table_of(rows))
    assert "S1: no scan at BL, and no arm that is one of the groups" in note


@pytest.fixture(scope="module")
def half_lost():
    """Models of change and of values of 60 subjects; of every group, three of ten never come again."""
    rows = [row for row in rows_of_trial(60) if row["visit"] == "BL" or int(row["subject"][1:]) // 2 % 10 >= 3]
    table = table_of(rows)
    values = {"name": "values", "response": "value", "visits": ["M6", "BL", "M12"]}
    return tuple(run_models(plan_of(MODEL, MODEL | values), table, maps_of(table)))


def options_of(model, **more):
    told = {"run": Path("run"), "model": model, "level": "", "dropout": None, "effect": 5.0, "alpha": 0.05}
    return argparse.Namespace(**told | more)


@pytest.fixture
def assumed_of(half_lost, monkeypatch):
    monkeypatch.setattr(run_folder, "models_of", lambda _folder: half_lost)
    return lambda model, **more: power_command.assumed_of_run(options_of(model, **more))


def test_power_of_a_run_knows_of_those_who_never_came_again(assumed_of):
    assert assumed_of("primary").missing == pytest.approx((0.3, 0.3))
    assert assumed_of("values").missing == pytest.approx((0, 0.3, 0.3))
    assert assumed_of("primary", dropout=(0.2,)).missing == pytest.approx((0.1, 0.2))
    assert assumed_of("values", dropout=(0.2,)).missing == pytest.approx((0, 0.1, 0.2))


def test_power_of_values_is_that_of_their_change_from_the_baseline(assumed_of, half_lost):
    assumed = assumed_of("values")
    assert assumed.visits == ("BL", "change at M6", "change at M12")
    values = np.array(half_lost[1].covariance)  # M6, BL, M12
    change = values[2, 2] + values[1, 1] - 2 * values[1, 2]
    assert assumed.covariance[2, 2] == pytest.approx(change)
    assert assumed.covariance[0, 0] == pytest.approx(values[1, 1])
    assert assumed.covariance[0, 2] == pytest.approx(values[1, 2] - values[1, 1])
    assert change < 0.2 * values[2, 2]  # subjects differ by more than they change
