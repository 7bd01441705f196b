"""``discnode cohort`` on results whose effects are known."""

import csv
import json
import shutil

import numpy as np
import pytest
import yaml
from cohort_site import CohortSite, levels_of, one_result

from config.cohort_plans import load_cohort_plan
from processing.cohort.inference import Control
from processing.results import Level
from service.cli import main
from service.cohort.maps import load_maps
from service.cohort.run import run_plan
from service.cohort.table import read_table

ANALYSES = [
    {"kind": "variable", "name": "grade", "variable": "grade_{level}", "covariates": ["age"], "visit": "BL"},
    {"kind": "group", "name": "severe", "column": "odi", "above": 40, "visit": "BL"},
    {"kind": "between", "name": "t1rho-t2", "visit": "BL"},
    {"kind": "time", "name": "change", "baseline": "BL", "later": "M12"},
    {"kind": "time", "name": "change-odi", "baseline": "BL", "later": "M12", "variable": "odi-baseline"},
]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return one_result(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def site(template, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    site, rng = CohortSite(template, folder), np.random.default_rng(2)
    for index in range(22):
        grade = int(rng.integers(1, 6))
        odi = float(rng.uniform(0, 80))
        columns = {
            "grade_L4L5": grade,
            "grade_L5S1": int(rng.integers(1, 6)),
            "age": float(rng.uniform(20, 70)),
            "arm": "active" if index % 3 else "control",
        }
        site.add(f"S{index}", effect=-6.0 * (grade - 3), shift=3 * rng.standard_normal(), odi=odi, months=0, **columns)
        if index < 12:
            later = {"odi": odi - 10 - index, "months": 11.5} | columns
            site.add(f"S{index}", "M12", effect=-6.0 * (grade - 3) + 25, **later)
    site.write_table(folder / "cohort.csv")
    return site


def plan_of(site, path, **changes):
    content = {
        "name": "test",
        "table": str(site.folder / "cohort.csv"),
        "levels": ["L4L5", "L5S1"],
        "analyses": ANALYSES,
        "inference": {"permutations": 150},
        "min_n": 5,
    } | changes
    path.write_text(yaml.safe_dump(content))
    return path


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def outcome(site, tmp_path_factory):
    folder = tmp_path_factory.mktemp("outcome")
    plan = plan_of(site, folder / "plan.yaml")
    assert main(["cohort", "check", str(plan)]) == 0
    assert main(["cohort", "run", str(plan), "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_effects_are_found_where_they_were_planted(outcome, site):
    with np.load(outcome / "maps" / "grade_L4L5_T1rho.npz") as maps:
        found = maps["p_max_t"] <= 0.05
        ball = site.ball_in(found.shape)
        assert 2 * (found & ball).sum() / (found.sum() + ball.sum()) >= 0.6
        assert (maps["effect"][found] < 0).all()
    summary = {(row["analysis"], row["level"], row["quantity"]): row for row in rows_of(outcome / "summary.csv")}
    assert int(summary["grade", "L5S1", "T1rho"]["n_max_t"]) == 0
    assert int(summary["change", "L4L5", "T2"]["n_max_t"]) > 20
    assert summary["change", "L4L5", "T2"]["subjects"] == "12"
    assert summary["change", "L4L5", "T2"]["notes"].startswith(
        "S12, S13, S14, S15, S16, S17, S18, S19, S20, S21: not both scans"
    )
    assert summary["grade", "L4L5", "T1rho"]["subjects"] == "22"


def test_slopes_say_what_the_change_says_for_each_month(site, tmp_path):
    """Of the same scans; only those who came twice have a slope."""
    analyses = [
        ANALYSES[3],
        {"kind": "slope", "name": "course", "time": "months"},
        {"kind": "slope", "name": "course-arm", "time": "months", "column": "arm", "second": "active"},
    ]
    path = plan_of(site, tmp_path / "plan.yaml", analyses=analyses, levels=["L4L5"], quantities=["T1rho"])
    plan = load_cohort_plan(path)
    table = read_table(plan.table)
    change, course, arm = run_plan(plan, table, load_maps(table.scans, plan))
    np.testing.assert_allclose(course.analysis.effect, change.analysis.effect / 11.5, atol=1e-4)
    for control in (Control.UNCORRECTED, Control.MAX_T):
        np.testing.assert_allclose(course.analysis.inference.p[control], change.analysis.inference.p[control])
    assert len(arm.analysis.units) == 12
    assert arm.analysis.groups is not None
    assert any("S20" in one and "no two scans at different months" in one for one in course.left_out)


def test_every_table_says_what_it_is_for(outcome):
    for name in ("summary.csv", "regions.csv", "clusters.csv"):
        assert {row["use"] for row in rows_of(outcome / name)} == {"research use only"}
    run = json.loads((outcome / "run.json").read_text())
    assert run["seed"] == 1
    assert len(run["plan_sha256"]) == 64
    assert run["paper_mode"] is False


def test_the_same_plan_gives_the_same_bytes(site, tmp_path):
    plan = plan_of(site, tmp_path / "plan.yaml", analyses=ANALYSES[:1], levels=["L4L5"], quantities=["T1rho"])
    for name in ("first", "second"):
        assert main(["cohort", "run", str(plan), "--out", str(tmp_path / name)]) == 0
    files = [path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*") if path.is_file()]
    assert len(files) >= 9
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_paper_mode_takes_scans_as_independent_and_corrects_nothing(site, tmp_path):
    analyses = [{"kind": "variable", "name": "grade", "variable": "grade_{level}"}]
    plan = plan_of(site, tmp_path / "plan.yaml", analyses=analyses, paper=True, quantities=["T1rho"])
    assert main(["cohort", "run", str(plan), "--out", str(tmp_path / "out")]) == 0
    rows = rows_of(tmp_path / "out" / "summary.csv")
    assert {row["subjects"] for row in rows} == {"34"}
    assert "n_max_t" not in rows[0]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["paper_mode"] is True


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"analyses": [{"kind": "variable", "name": "a", "variable": "smoker", "visit": "BL"}]},
            "unknown column 'smoker'",
        ),
        ({"analyses": [{"kind": "variable", "name": "a", "variable": "odi"}]}, "more than one scan of S0"),
        (
            {"analyses": [{"kind": "variable", "name": "a", "variable": "odi", "visit": "M6"}]},
            "no scan of the visit 'M6'",
        ),
        (
            {"analyses": [{"kind": "group", "name": "a", "column": "odi", "above": 200, "visit": "BL"}]},
            "the same value",
        ),
        (
            {"analyses": [{"kind": "variable", "name": "a", "variable": "odi", "covariates": ["odi"], "visit": "BL"}]},
            "combination",
        ),
        ({"min_n": 30, "analyses": ANALYSES[:1]}, "min_n is 30"),
        ({"analyses": [{"kind": "slope", "name": "a", "time": "years"}]}, "unknown column 'years'"),
        (
            {"analyses": [{"kind": "slope", "name": "a", "time": "months", "visits": ["BL", "M6"]}]},
            "no scan of the visit 'M6'",
        ),
        ({"analyses": [{"kind": "slope", "name": "a", "time": "age"}]}, "no two scans at different age"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_computed(site, tmp_path, capsys, changes, said):
    plan = plan_of(site, tmp_path / "plan.yaml", **changes)
    assert main(["cohort", "check", str(plan)]) == 2
    assert said in capsys.readouterr().err
    assert main(["cohort", "run", str(plan), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("subject,", "person,", 1), "lacks the column subject"),
        (lambda text: text + text.splitlines()[1] + "\n", "has the visit 'BL' in line 2"),
        (lambda text: text.replace("S3-BL", "nowhere"), "nowhere: holds no result.json"),
        (lambda text: text + "S99,BL\n", "another number of cells"),
    ],
)
def test_a_table_with_a_fault_names_the_line(site, tmp_path, capsys, change, said):
    text = (site.folder / "cohort.csv").read_text()
    (site.folder / "broken.csv").write_text(change(text.replace("\r\n", "\n")))
    plan = plan_of(site, tmp_path / "plan.yaml", table=str(site.folder / "broken.csv"))
    assert main(["cohort", "check", str(plan)]) == 2
    assert said in capsys.readouterr().err


class TestMapsThatCannotBeAnalysed:
    """Faults that only the maps tell: nothing is computed or left behind."""

    @pytest.fixture
    def few(self, template, tmp_path):
        site = CohortSite(template, tmp_path)
        for index in range(8):
            site.add(f"S{index}", shift=index, age=20 + index * index, arm="b" if index > 5 else "a")
        site.write_table(tmp_path / "cohort.csv")
        return site

    def run(self, site, **changes):
        settings = {"analyses": [{"kind": "variable", "name": "age", "variable": "age"}], "levels": ["L4L5"]}
        plan = plan_of(site, site.folder / "plan.yaml", **(settings | {"quantities": ["T1rho"]} | changes))
        assert main(["cohort", "check", str(plan)]) == 0
        return main(["cohort", "run", str(plan), "--out", str(site.folder / "out")])

    def test_a_map_without_any_value_is_left_out_and_told(self, few):
        few.change_map("S3-BL", lambda values: 0 * values)
        assert self.run(few) == 0
        (row,) = rows_of(few.folder / "out" / "summary.csv")
        assert row["subjects"] == "7"
        assert "line 5: S3 BL: no map" in row["notes"]

    def test_a_map_with_many_holes_is_named(self, few):
        few.change_map("S3-BL", lambda values: np.where(np.arange(values.size).reshape(values.shape) % 2, values, 0))
        assert self.run(few) == 0
        (row,) = rows_of(few.folder / "out" / "summary.csv")
        assert row["subjects"] == "8"
        assert 0 < int(row["voxels_in_family"]) < 0.6 * int(row["voxels"])
        assert "S3 lacks 5" in row["notes"]

    def test_a_group_that_loses_a_map_is_too_small(self, few, capsys):
        few.change_map("S6-BL", lambda values: 0 * values)
        asked = {"kind": "group", "name": "arm", "column": "arm", "second": "b"}
        assert self.run(few, analyses=[asked]) == 2
        told = capsys.readouterr().err
        assert "arm at L4L5, T1rho: the second group has 1 subjects (S7); at least 2 are needed" in told
        assert not (few.folder / "out").exists()

    def test_voxels_that_do_not_vary_have_no_result(self, few):
        for index in range(8):
            few.change_map(f"S{index}-BL", lambda values: np.where(values > 0, 77.7, 0))
        assert self.run(few, inference={"permutations": 20, "threshold_free": True}) == 0
        (row,) = rows_of(few.folder / "out" / "summary.csv")
        assert row["voxels_in_family"] == "0"
        assert "no voxel can be tested" in row["notes"]

    def test_a_quantity_that_nobody_has_is_no_analysis(self, few, capsys):
        for index in range(8):
            few.forget(f"S{index}-BL", "dicom/t2-atlas.dcm")
        assert self.run(few, quantities=["T2"]) == 2
        assert "no scan has any map that is asked for" in capsys.readouterr().err
        assert self.run(few, quantities=["T1rho", "T2"]) == 0
        assert "no scan has T2 at L4L5" in (few.folder / "out" / "run.json").read_text()

    @pytest.mark.parametrize(
        ("harm", "said"),
        [
            (lambda folder: shutil.rmtree(folder), "line 4: S2-BL: holds no result.json"),
            (lambda folder: shutil.rmtree(folder / "dicom"), "line 4: S2: dicom/atlas-001.dcm stands in result.json"),
            (lambda folder: (folder / "dicom" / "t1rho-atlas.dcm").write_bytes(b"x" * 500), "line 4: t1rho-atlas.dcm"),
            (lambda folder: truncate(folder / "dicom" / "t1rho-atlas.dcm"), "line 4: t1rho-atlas.dcm"),
            (lambda folder: truncate(folder / "dicom" / "atlas-003.dcm"), "line 4: "),
        ],
    )
    def test_a_result_that_is_harmed_after_the_check_is_told_with_its_line(self, few, capsys, harm, said):
        plan = plan_of(few, few.folder / "plan.yaml", analyses=[{"kind": "variable", "name": "age", "variable": "age"}])
        assert main(["cohort", "check", str(plan)]) == 0
        harm(few.folder / "S2-BL")
        assert main(["cohort", "run", str(plan), "--out", str(few.folder / "out")]) == 2
        assert said in capsys.readouterr().err
        assert not (few.folder / "out").exists()


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_results_of_two_atlases_are_not_mixed(template, tmp_path, capsys):
    site = CohortSite(template, tmp_path)
    for index in range(6):
        site.add(f"S{index}", age=20 + index)
    site.write_table(tmp_path / "cohort.csv")
    site.change_version("S4-BL", atlas_sha256="f" * 64)
    analyses = [{"kind": "variable", "name": "age", "variable": "age"}]
    plan = plan_of(site, tmp_path / "plan.yaml", analyses=analyses)
    assert main(["cohort", "run", str(plan), "--out", str(tmp_path / "out")]) == 2
    assert "more than one atlas" in capsys.readouterr().err
    assert levels_of(tmp_path / "S0-BL") >= {Level.L4L5}
