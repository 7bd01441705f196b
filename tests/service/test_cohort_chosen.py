"""Which scans an analysis takes where maps are missing, and that each subject left out is told once."""

from pathlib import Path

import pytest

from config.cohort_plans import CohortPlan
from service.cohort.asked import questions
from service.cohort.questions import prepare
from service.cohort.table import CohortTable, Scan

VISITS = {"BL": "0", "M6": "6", "M12": "12"}


@pytest.fixture
def table():
    """Six subjects at three visits; ages stand in the baseline rows only."""
    places = [(subject, visit) for subject in range(6) for visit in VISITS]
    scans = tuple(
        Scan(
            line,
            f"S{subject}",
            visit,
            Path(f"r{line}"),
            {"months": VISITS[visit], "age": str(30 + subject**2) if visit == "BL" else "", "odi": str(7 * line % 11)},
        )
        for line, (subject, visit) in enumerate(places, start=2)
    )
    return CohortTable(scans, ("months", "age", "odi"))


def prepared(table, analysis, without):
    content = {"name": "p", "table": Path("t.csv"), "levels": ["L4L5"], "analyses": [analysis], "min_n": 3}
    plan = CohortPlan.model_validate(content)
    (question,) = questions(plan)
    return prepare(plan, table, question, lambda scan: scan.line not in without)


def test_a_slope_reads_its_columns_at_the_first_scan_even_if_that_has_no_map(table):
    asked = {"kind": "slope", "name": "q", "time": "months", "variable": "age"}
    found = prepared(table, asked, {2, 6, 7, 11, 12, 13})
    assert [one.subject for one in found.scans] == ["S0", "S2", "S4", "S5"]
    assert found.scans[0].visit == "M6"
    assert list(found.design.variable) == [30, 34, 46, 55]
    assert found.left_out == (
        "line 2: S0 BL: no map",
        "S1: no two scans at different months (no map in lines 6, 7)",
        "S3: no two scans at different months (no map in lines 11, 12, 13)",
    )
    assert [scan.line for scan in found.course] == [3, 4, 8, 9, 10, 14, 15, 16, 17, 18, 19]


def test_a_change_tells_each_subject_without_both_maps_once(table):
    asked = {"kind": "time", "name": "q", "baseline": "BL", "later": "M12", "variable": "odi", "covariates": ["age"]}
    found = prepared(table, asked, {4, 5, 7})
    assert found.left_out == ("line 4: S0 M12: no map", "lines 5, 7: S1: no map")
    assert [one.visit for one in (*found.before, *found.scans)] == ["BL"] * 4 + ["M12"] * 4
    assert list(found.design.covariates[:, 0]) == [34, 39, 46, 55]
    assert list(found.design.variable) == [7 * line % 11 for line in (10, 13, 16, 19)]
