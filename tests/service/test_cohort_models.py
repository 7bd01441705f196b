"""``discnode cohort`` on the visits of a trial: models, what becomes of missing visits, its report again, its power."""

import csv
import hashlib
import json
import shutil

import numpy as np
import pytest
import yaml
from cohort_site import CohortSite, one_result
from scipy import stats

from service.cli import main

PRIMARY = {
    "name": "primary",
    "quantity": "T1rho",
    "region": "nucleus",
    "baseline": "BL",
    "visits": ["M6", "M12"],
    "group": "arm",
    "reference": "placebo",
    "covariates": ["age"],
    "responders": {"visit": "M12", "limit_ms": 6},
    "missing": {"visit": "M12", "imputations": 40},
}
VALUES = {
    "name": "values",
    "quantity": "T1rho",
    "response": "value",
    "baseline": "BL",
    "visits": ["BL", "M12"],
    "group": "arm",
    "reference": "placebo",
    "levels_as": "together",
    "levels": ["L4L5", "L5S1"],
    "degrees_of_freedom": "satterthwaite",
}
MAPS = [
    {"kind": "time", "name": "change", "baseline": "BL", "later": "M12"},
    {"kind": "group", "name": "arms", "column": "arm", "second": "active", "visit": "M12"},
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """24 subjects; the active arm gains 4 ms by M6 and 9 ms by M12 in all discs; two leave, one never comes again."""
    folder = tmp_path_factory.mktemp("trial")
    site = CohortSite(one_result(folder / "template"), folder)
    rng = np.random.default_rng(5)
    for index in range(24):
        active, shift = index % 2, 8 * rng.standard_normal()
        columns = {"arm": "active" if active else "placebo", "age": round(float(rng.uniform(20, 70)), 1)}
        columns |= {"centre": "north" if index % 3 else "south", "flat": 1, "age_too": 2 * columns["age"]}
        site.add(f"S{index}", "BL", shift=shift, **columns)
        for visit, gain in (("M6", 4), ("M12", 9)):
            if (index, visit) in {(3, "M12"), (8, "M12"), (11, "M6"), (11, "M12")}:
                continue
            site.add(f"S{index}", visit, shift=shift + active * gain + 3 * rng.standard_normal(), **columns)
    site.write_table(folder / "cohort.csv")
    return site


FIVE = ("S0", "S1", "S2", "S4", "S5")


def plan_of(cohort, path, **changes):
    content = {
        "name": "trial",
        "table": str(cohort.folder / "cohort.csv"),
        "levels": ["L4L5", "L5S1"],
        "quantities": ["T1rho"],
        "analyses": MAPS,
        "models": [PRIMARY, VALUES],
        "inference": {"permutations": 50},
    } | changes
    path.write_text(yaml.safe_dump(content))
    return path


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def run(site, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    plan = plan_of(site, folder / "plan.yaml")
    assert main(["cohort", "check", str(plan)]) == 0
    assert main(["cohort", "run", str(plan), "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_the_gain_of_the_active_arm_is_found_at_each_level(run):
    rows = [row for row in rows_of(run / "models.csv") if row["model"] == "primary" and row["what"] == "between"]
    assert [(row["level"], row["visit"]) for row in rows] == [
        (level, visit) for level in ("L4L5", "L5S1") for visit in ("M6", "M12")
    ]
    for row in rows:
        truth = 4 if row["visit"] == "M6" else 9
        assert float(row["low_ms"]) < truth < float(row["high_ms"])
        assert float(row["p_holm"]) >= float(row["p"])
        assert 12 < float(row["df"]) < 21


def test_discs_of_a_subject_together_are_no_more_subjects_than_there_are(run):
    (row,) = (
        row
        for row in rows_of(run / "models.csv")
        if (row["model"], row["what"], row["level"]) == ("values", "change between", "all")
    )
    assert float(row["df"]) < 23
    assert float(row["low_ms"]) < 9 < float(row["high_ms"])
    covariance = [row for row in rows_of(run / "model_covariance.csv") if row["model"] == "values"]
    assert len(covariance) == 10  # two levels at two visits: four occasions
    between_discs = next(row for row in covariance if row["first"] == "L4L5 BL" and row["second"] == "L5S1 BL")
    assert float(between_discs["correlation"]) > 0.8  # all discs of a subject were shifted alike


def test_responders_are_counted_with_missing_subjects_left_out_and_as_non_responders(run):
    rows = [row for row in rows_of(run / "responders.csv") if row["level"] == "L4L5" and row["what"] == "share"]
    known, worst = ([row for row in rows if row["missing"] == one] for one in ("left out", "non-responder"))
    assert [(row["group"], row["n"], row["n_missing"]) for row in known] == [
        ("placebo", "11", "1"),
        ("active", "10", "2"),
    ]
    assert [row["n"] for row in worst] == ["12", "12"]
    assert [row["n_responders"] for row in worst] == [row["n_responders"] for row in known]
    difference = next(row for row in rows_of(run / "responders.csv") if row["what"] == "difference")
    counts = [[int(row["n_responders"]), int(row["n"]) - int(row["n_responders"])] for row in known]
    assert float(difference["p"]) == pytest.approx(stats.fisher_exact(np.array(counts)).pvalue, rel=1e-5)


def test_who_left_is_imputed_the_one_that_never_came_again_too(run):
    rows = [row for row in rows_of(run / "missing_data.csv") if row["level"] == "L4L5"]
    assert {(row["n_imputed_group"], row["n_imputed_reference"]) for row in rows} == {("2", "1")}
    tipping = next(float(row["delta_ms"]) for row in rows if row["what"] == "tipping point")
    assert tipping < -9
    at_random = next(row for row in rows if row["what"] == "at random")
    jump = next(row for row in rows if row["what"] == "jump to reference")
    assert float(jump["estimate_ms"]) < float(at_random["estimate_ms"])


def test_the_run_its_summary_and_its_report_tell_of_the_models(site, run):
    told = json.loads((run / "run.json").read_text())
    assert [(one["model"], one["level"], one["subjects"]) for one in told["models"]] == [
        ("primary", "L4L5", 23), ("primary", "L5S1", 23), ("values", "L4L5, L5S1", 24),
    ]  # fmt: skip
    assert any(
        row["analysis"] == "primary" and "active less placebo, M12" in row["notes"]
        for row in rows_of(run / "summary.csv")
    )
    html = (run / "report.html").read_text(encoding="utf-8")
    assert told["table_sha256"] == hashlib.sha256((site.folder / "cohort.csv").read_bytes()).hexdigest()
    for text in (
        told["table_sha256"],
        "arm × visit",
        "Kenward and Roger",
        "baseline × visit",
        "jump to reference",
        "S11",
        told["plan_sha256"],
        "Made with discnode",
    ):
        assert text in html
    for name in ("model_primary.svg", "model_primary_missing.png", "model_values.pdf"):
        assert (run / "figures" / name).stat().st_size > 2000


def test_the_report_of_a_run_is_made_again_from_its_folder_alone(run, tmp_path):
    again = tmp_path / "moved"
    shutil.copytree(run, again)
    for path in [again / "report.html", again / "report.pdf", *(again / "figures").iterdir()]:
        path.unlink()
    assert main(["cohort", "report", str(again)]) == 0
    for path in [run / "report.html", *(run / "figures").glob("*.[sp][vn]g")]:
        assert (again / path.relative_to(run)).read_bytes() == path.read_bytes(), path.name
    assert (again / "report.pdf").stat().st_size == (run / "report.pdf").stat().st_size


def test_a_folder_that_is_no_run_or_was_changed_is_refused(run, tmp_path, capsys):
    assert main(["cohort", "report", str(tmp_path)]) == 2
    assert "no folder of a finished run" in capsys.readouterr().err
    changed = tmp_path / "changed"
    shutil.copytree(run, changed)
    with (changed / "plan.yaml").open("a") as stream:
        stream.write("seed: 7\n")
    assert main(["cohort", "report", str(changed)]) == 2
    assert "not the plan that was run" in capsys.readouterr().err
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / "record" / "models.json").write_text("[{}]")
    assert main(["cohort", "report", str(broken)]) == 2
    assert "models.json: is not what a run wrote" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"group": "sex"}, "unknown column 'sex'"),
        ({"visits": ["M6", "M24"], "responders": None, "missing": None}, "no scan of the visit 'M24'"),
        ({"reference": "sham"}, "no subject is of the reference 'sham'; there are active, placebo"),
        ({"covariates": ["flat"]}, "flat: the same value (1) for all subjects"),
        ({"group": "flat", "reference": "1"}, "flat: the same value (1) for all subjects"),
        ({"responders": {"visit": "M12", "precision": "borrowed-disc-t2"}}, "knows nothing of T1rho of the nucleus"),
        ({"responders": {"visit": "M9", "limit_ms": 5}}, "'M9' is none of the visits M6, M12"),
        ({"responders": {"visit": "M12", "limit_ms": 5, "limit_percent": 9}}, "give one of limit_ms"),
        ({"baseline": None}, "a change needs a baseline"),
        ({"covariates": ["age", "age_too"]}, "age_too: is a combination of the groups and the columns before it"),
        ({"site": True}, "the plan names no column of sites"),
        ({"levels_as": "together"}, "needs levels_as: each or mean"),
        ({"quantity": "T2"}, "T2 is none of the plan's quantities"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_model_is_told_before_anything_is_computed(site, tmp_path, capsys, change, said):
    plan = plan_of(site, tmp_path / "plan.yaml", models=[PRIMARY | change])
    assert main(["cohort", "check", str(plan)]) == 2
    assert said in capsys.readouterr().err
    assert main(["cohort", "run", str(plan), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[5].update(age="NA"), "line 7: age: no value for S1"),
        (lambda rows: rows[3].update(arm=""), "line 5: arm: no value for S1"),
        (lambda rows: rows[1].update(arm="active"), "arm: S0 has 'placebo' in line 2, 'active' in line 3"),
        (lambda rows: [row.update(arm="third") for row in rows[:3]], "the group 'third' has 1 subjects"),
        (
            lambda rows: rows.__setitem__(slice(None), [row for row in rows if row["subject"] in FIVE]),
            "primary at L4L5, L5S1: 5 subjects are too few for an unstructured covariance of 2",
        ),
        (lambda rows: rows.append(rows[1]), "S0 has the visit 'M6' in line 3, too"),
    ],
)  # fmt: skip
def test_a_fault_of_the_table_names_the_line_and_the_rule(site, tmp_path, capsys, change, said):
    rows = rows_of(site.folder / "cohort.csv")
    if said.startswith("line 7"):
        rows[5]["visit"], rows[3]["visit"] = "BL", "M12"
    change(rows)
    path = site.folder / "faulty.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    plan = plan_of(site, tmp_path / "plan.yaml", table=str(path), models=[PRIMARY])
    assert main(["cohort", "check", str(plan)]) == 2
    assert said in capsys.readouterr().err


def test_sites_and_means_of_levels_are_terms_of_a_model_without_maps(site, tmp_path):
    model = PRIMARY | {"levels_as": "mean", "site": True}
    plan = plan_of(site, tmp_path / "plan.yaml", analyses=[], models=[model], site="centre")
    assert main(["cohort", "run", str(plan), "--out", str(tmp_path / "out")]) == 0
    rows = rows_of(tmp_path / "out" / "models.csv")
    assert {row["level"] for row in rows} == {"mean of levels"}
    assert "arm × visit, baseline × visit, age, centre" in (tmp_path / "out" / "report.html").read_text(
        encoding="utf-8"
    )
    assert not (tmp_path / "out" / "regions.csv").exists()


def test_a_precision_of_ones_own_is_told_by_its_name_and_its_digest(site, tmp_path):
    entry = {"quantity": "T1rho", "regions": ["nucleus"], "within_cv": 0.03, "borrowed": False, "source": "measured"}
    own = tmp_path / "own.yaml"
    profile = {"name": "here", "description": "our scanner", "entries": [entry]}
    own.write_text(yaml.safe_dump({"profiles": [profile]}))
    model = PRIMARY | {"responders": {"visit": "M12", "precision": "own.yaml"}, "missing": None}
    plan = plan_of(site, tmp_path / "plan.yaml", analyses=[], models=[model], levels=["L4L5"])
    assert main(["cohort", "run", str(plan), "--out", str(tmp_path / "out")]) == 0
    sha256 = hashlib.sha256(own.read_bytes()).hexdigest()
    assert json.loads((tmp_path / "out" / "run.json").read_text())["precision_sha256"] == {"own.yaml": sha256}
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert sha256 in html
    assert str(tmp_path) not in html
    assert {row["responder"].rpartition(", ")[2] for row in rows_of(tmp_path / "out" / "responders.csv")} == {
        "by own.yaml at M12"
    }


def test_power_is_told_from_numbers_and_from_a_run(run, tmp_path, capsys):
    asked = ["cohort", "power", "--effect", "5", "--simulations", "1000"]
    assert main([*asked, "--sd", "8", "--out", str(tmp_path / "power.csv")]) == 0
    rows = rows_of(tmp_path / "power.csv")
    assert abs(int(rows[0]["n_per_group"]) - 42) <= 4  # 42 by the closed form
    assert abs(int(rows[1]["n_per_group"]) - 55) <= 5
    assert main([*asked, "--run", str(run), "--model", "primary", "--level", "L4L5", "--n", "20,30"]) == 0
    assert "Kenward-Roger; 1000 trials each" in capsys.readouterr().out
    assert main([*asked, "--run", str(run), "--model", "primary"]) == 2
    assert "2 models are so called; it holds primary at L4L5, primary at L5S1" in capsys.readouterr().err
    assert main([*asked, "--sd", "8,8", "--correlation", "1.5"]) == 2
    assert "not positive definite" in capsys.readouterr().err


def test_power_of_maps_is_told_beside_that_of_the_mean(tmp_path, capsys):
    asked = ["cohort", "power", "--map", "L4L5", "--effect", "14", "--simulations", "60"]
    assert main([*asked, "--sd", "10", "--n", "20", "--out", str(tmp_path / "maps.csv")]) == 0
    (row,) = rows_of(tmp_path / "maps.csv")
    assert float(row["power"]) > 0.8
    assert float(row["region_power"]) < 0.5
    assert main([*asked, "--sd", "10", "--radius=-1", "--n", "20"]) == 2
    assert "holds no voxel" in capsys.readouterr().err
    assert main(asked) == 2
    assert "needs one --sd" in capsys.readouterr().err
