"""The reproduction on simulated cohorts: who is in them, what is asked, and what becomes of what was planted."""

import csv
import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import yaml
from simulated_cohort import MadeUpScans

from config.cohort_plans import load_cohort_plan
from processing.phantom import anatomy_of
from processing.phantom_visits import at_visit
from processing.results import LUMBAR_LEVELS
from service.cli import main
from service.cohort.reproduction.effects import ODI_LEVEL, odi_change, planted_effects
from service.cohort.reproduction.plans import CORRECTED, PlanFailed, digest_of, run_plans, runs_of, write_plans
from service.cohort.reproduction.planted import effect_found, judge, verdict_lines, write_verdict
from service.cohort.reproduction.records import Cohort, read_scans, write_scans
from service.cohort.reproduction.scans import (
    end_registration_at_exit,
    measure_scans,
    scan_of,
    simulate,
    visits_of,
    write_recipe,
)
from service.cohort.reproduction.subjects import FOLLOW_UP, draw_cohort
from service.cohort.reproduction.whole import Asked, NotOurs, claim
from service.cohort.run_folder import is_finished_run

SIZES = {Cohort.A: 16, Cohort.B: 15}


@pytest.fixture(scope="module")
def people():
    return {cohort: draw_cohort(cohort, n, 1) for cohort, n in SIZES.items()}


def test_the_cohorts_are_those_of_the_paper_in_size_and_kind(people):
    assert [len(people[cohort]) for cohort in Cohort] == [16, 15]
    assert sum(one.has_pain for one in people[Cohort.A]) == 10
    assert all(one.has_pain for one in people[Cohort.B])
    assert sum(one.later is not None for one in people[Cohort.B]) == 4
    assert sum(one.odi > 40 for one in people[Cohort.B]) == 6
    assert {grade for one in people[Cohort.A] for grade in one.grades} <= {1, 2, 3, 4, 5}
    assert max(grade for one in people[Cohort.B] for grade in one.grades) in (7, 8)
    assert {"ipaq", "vas_mean", "fat_L4L5", "grade_L1L2"} <= people[Cohort.B][0].values.keys()
    assert "ipaq" not in people[Cohort.A][0].values


def test_the_same_seed_draws_the_same_people_and_another_seed_others(people):
    assert draw_cohort(Cohort.A, 16, 1) == people[Cohort.A]
    assert draw_cohort(Cohort.A, 16, 2) != people[Cohort.A]
    with pytest.raises(ValueError, match="at least 9"):
        draw_cohort(Cohort.A, 3, 1)


@pytest.mark.parametrize("cohort", list(Cohort))
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_odi_goes_with_nothing_that_could_pass_for_it(cohort, seed):
    drawn = draw_cohort(cohort, SIZES[cohort], seed)
    odi = [one.odi for one in drawn]
    grades = np.array([one.grades for one in drawn])
    assert grades.std(axis=0).min() > 0.7
    for other in (grades[:, ODI_LEVEL - 1], [one.age for one in drawn], [one.female for one in drawn]):
        assert abs(np.corrcoef(odi, other)[0, 1]) < 0.3


def test_every_scan_can_be_drawn_and_the_effect_of_the_odi_has_opposite_signs(people):
    for cohort, sign in ((Cohort.A, -1), (Cohort.B, 1)):
        for one in visits_of(people[cohort]):
            at_visit(anatomy_of(one.seed, one.spine), one.change)
        assert np.sign(odi_change(cohort, 60).t1rho_ms - odi_change(cohort, 20).t1rho_ms) == sign


def test_a_follow_up_is_the_same_spine_with_a_nucleus_a_little_worse(people):
    one = next(one for one in people[Cohort.B] if one.later is not None)
    assert one.later.visit == FOLLOW_UP
    assert (one.later.spine, one.later.grades, one.later.name) == (one.spine, one.grades, one.name)
    before, after = (at_visit(anatomy_of(p.seed, p.spine), p.change).discs[ODI_LEVEL - 1] for p in (one, one.later))
    assert 0.93 < after.nucleus_ms[1] / before.nucleus_ms[1] < 0.99
    assert after.anterior_annulus_ms == before.anterior_annulus_ms


def test_effects_lie_on_the_atlas_and_say_what_they_are():
    effects = planted_effects(Cohort.B)
    assert len(effects) == 2 * (len(LUMBAR_LEVELS) + 1)
    where = next(one for one in effects if one.variable == "odi")
    nucleus = next(one for one in effects if one.variable == "grade" and one.level == ODI_LEVEL)
    assert where.share.shape == nucleus.share.shape
    planted, disc = (where.share >= 0.5).sum(), 4397
    assert 0.02 < planted / disc < 0.12  # smaller than any part of the disc
    assert ((where.share >= 0.5) & (nucleus.share < 0.05)).any()


def test_the_truth_of_a_scan_holds_what_was_planted(people):
    one = next(one for one in people[Cohort.A] if one.odi < 10)
    exam = simulate(one)
    bare = replace(one, odi=70)
    moved = np.nan_to_num(exam.t1rho_ms - simulate(bare).t1rho_ms)
    assert moved.max() == pytest.approx(odi_change(Cohort.A, one.odi).t1rho_ms, rel=0.02)
    assert set(exam.labels[moved > 1.0].tolist()) == {int(ODI_LEVEL)}
    assert exam.signal.shape[:2] == (4, 1)


def test_the_plans_are_in_order_and_paper_mode_is_said(tmp_path):
    paths = write_plans(tmp_path, seed=3, permutations=100, has_follow_up=True)
    assert tuple(path.stem for path in paths) == runs_of()
    plans = {path.stem: load_cohort_plan(path) for path in paths}
    assert [plan.paper for plan in plans.values()] == [True, False, True, False]
    assert plans["A-paper"].quantities == ("T1rho",)
    names = [one.name for one in plans["B-corrected"].analyses]
    assert {"grade", "odi", "odi-over-40", "t1rho-t2", "ipaq", "grade-fat", "change"} <= set(names)
    assert "change" not in [one.name for one in plans["B-paper"].analyses]
    assert all(getattr(one, "visit", "BL") == "BL" for one in plans["B-corrected"].analyses)
    few = write_plans(tmp_path, seed=3, permutations=100, has_follow_up=False)
    assert "change" not in [one.name for one in load_cohort_plan(few[3]).analyses]
    assert all("simulated data" in path.read_text() for path in paths)


def test_a_folder_of_something_else_is_refused(tmp_path, capsys):
    asked = Asked(SIZES, 1, 100)
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "note.txt").write_text("mine")
    with pytest.raises(NotOurs, match="no reproduction"):
        claim(tmp_path / "held", asked)
    claim(tmp_path / "new", asked)
    claim(tmp_path / "new", replace(asked, permutations=200))
    with pytest.raises(NotOurs, match="seed 1"):
        claim(tmp_path / "new", replace(asked, seed=2))
    assert main(["cohort", "reproduce", "--out", str(tmp_path / "held")]) == 2
    assert main(["cohort", "reproduce", "--out", str(tmp_path / "x"), "--subjects-a", "2"]) == 2
    assert "at least 9" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.timeout(180)
def test_a_process_that_measured_ends_with_its_registration_process():
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    measured = pool.submit(os.getpid).result()
    pool.submit(end_registration_at_exit).result()
    pool.shutdown()  # would wait for ever
    assert not Path(f"/proc/{measured}").exists()


# -- verdict on findings that are made up -----------------------------------------------------------------------------


def finding(folder, name, effect, **p):
    (folder / "maps").mkdir(parents=True, exist_ok=True)
    arrays = {f"p_{control}": values.astype(np.float32) for control, values in p.items()}
    np.savez_compressed(folder / "maps" / f"{name}.npz", effect=effect.astype(np.float32), **arrays)


def odi_effect():
    return next(one for one in planted_effects(Cohort.A) if one.variable == "odi")


def test_a_region_found_exactly_has_dice_one_and_voxels_alone_see_it(tmp_path):
    planted = odi_effect()
    there = planted.share >= 0.5
    p = np.where(there, 0.01, 0.8)
    finding(tmp_path / "A-corrected", "odi_L4L5_T1rho", np.where(there, -0.9, 0.1), max_t=p, uncorrected=p)
    p_of = {("odi", "L4L5", "T1rho"): {"whole_disc": 0.4, "nucleus": 0.6, "posterior_annulus": 0.03}}
    rows = {one.control: one for one in effect_found(planted, tmp_path / "A-corrected", "odi", p_of)}
    assert set(rows) == {"max_t", "uncorrected"}
    one = rows["max_t"]
    assert (one.dice, one.right, one.significant, one.beside) == (1.0, there.sum(), there.sum(), 0)
    assert one.effect == pytest.approx(-0.9)
    assert (one.p_disc, one.p_region) == (0.4, 0.03)
    assert one.is_not_seen_by_disc
    assert list(effect_found(planted, tmp_path / "A-corrected", "odi-graded", p_of)) == []


def test_voxels_of_the_wrong_sign_or_elsewhere_are_no_finding(tmp_path):
    planted = odi_effect()
    there, nowhere = planted.share >= 0.5, planted.share < 0.05
    p = np.where(there | nowhere, 0.01, 0.8)
    finding(tmp_path / "A-corrected", "odi_L4L5_T1rho", np.where(there, 0.9, -0.9), max_t=p)
    (one,) = effect_found(planted, tmp_path / "A-corrected", "odi", {})
    assert (one.dice, one.right) == (0.0, 0)
    assert one.beside == nowhere.sum()
    assert not one.is_not_seen_by_disc


def test_maps_on_another_atlas_are_refused(tmp_path):
    finding(tmp_path / "A-corrected", "odi_L4L5_T1rho", np.zeros((1, 4, 5)), max_t=np.ones((1, 4, 5)))
    with pytest.raises(ValueError, match="do not lie on the atlas"):
        list(effect_found(odi_effect(), tmp_path / "A-corrected", "odi", {}))


# -- from scans to verdict --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(people, tmp_path_factory):
    """Both cohorts without the pipeline, one person refused; of B some questions at two levels, corrected."""
    folder = tmp_path_factory.mktemp("reproduction")
    measure = MadeUpScans(folder / "templates", refused=("A03",))
    everyone = [one for cohort in Cohort for one in visits_of(people[cohort])]
    outcomes = measure(everyone, folder, workers=1, tell=lambda _what, _share: None)
    write_scans(folder, [one.scan for one in outcomes if one.status != "refused"])
    chosen = []
    for path in write_plans(folder, seed=1, permutations=200, has_follow_up=True):
        content = yaml.safe_load(path.read_text()) | {"levels": ["L4L5", "L3L4"], "quantities": ["T1rho"]}
        asked = ("grade", "odi-graded", "ipaq")
        content["analyses"] = [one for one in content["analyses"] if one["name"] in asked]
        path.write_text(yaml.safe_dump(content))
        if path.stem == "B-corrected":
            chosen.append(path)
    run_plans(chosen, workers=2, tell=lambda _what, _share: None)
    verdict = judge(folder, (Cohort.B,), (CORRECTED,))
    write_verdict(verdict, folder)
    return folder, verdict


def test_what_was_planted_is_found_where_it_is_and_nothing_elsewhere(made):
    _, verdict = made
    rows = {(one.run, one.question, one.level, one.control): one for one in verdict.effects}
    one = rows["B-corrected", "odi-graded", "L4L5", "max_t"]
    assert one.dice >= 0.6
    assert one.effect > 0.8
    assert one.beside == 0
    assert rows["B-corrected", "grade", "L3L4", "max_t"].dice >= 0.8
    false = [one for one in verdict.elsewhere if one.control == "max_t"]
    assert {(one.run, one.question, one.tests) for one in false} == {
        ("B-corrected", "odi-graded", 1),
        ("B-corrected", "ipaq", 2),
    }
    assert sum(one.found for one in false) == 0


def test_the_verdict_is_written_and_told(made):
    folder, verdict = made
    with (folder / "verdict.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(verdict.effects)
    assert {row["use"] for row in rows} == {"Reproduction on simulated data; research use only"}
    document = json.loads((folder / "verdict.json").read_text())
    assert document["elsewhere"][0]["expected"] == pytest.approx(0.05 * document["elsewhere"][0]["tests"])
    lines = list(verdict_lines(verdict))
    assert lines[0].startswith("Reproduction on simulated data")
    assert any("B-corrected" in line and "by chance 0.2" in line for line in lines)


def test_the_tables_hold_who_was_measured_alone(made, people):
    folder, _ = made
    scans = read_scans(folder)
    assert [one.subject for one in scans if one.cohort is Cohort.A] == [
        one.name for one in people[Cohort.A] if one.name != "A03"
    ]
    assert sum(one.visit == FOLLOW_UP for one in scans) == 4
    assert all((one.result / "result.json").is_file() for one in scans)


def test_a_plan_that_was_run_on_the_same_results_is_not_run_again(made):
    folder, _ = made
    plan, run = folder / "B-corrected.yaml", folder / "B-corrected" / "run.json"
    before, ran_on = run.stat().st_mtime_ns, digest_of(plan)
    run_plans([plan], workers=1, tell=lambda _what, _share: None)
    assert run.stat().st_mtime_ns == before
    result = folder / "scans" / "B01-BL" / "result" / "result.json"
    result.write_text(result.read_text() + "\n")
    assert digest_of(plan) != ran_on


def test_a_run_that_cannot_be_read_any_more_is_made_again(made):
    """Its maps were "not found", and the figures of the paper not made, though the folder was there."""
    folder, _ = made
    plan, run = folder / "B-corrected.yaml", folder / "B-corrected" / "run.json"
    plan.with_suffix(".sha256").write_text(digest_of(plan))
    old = json.loads(run.read_text())
    del old["table_sha256"]
    run.write_text(json.dumps(old))
    assert not is_finished_run(run.parent)
    run_plans([plan], workers=1, tell=lambda _what, _share: None)
    assert is_finished_run(run.parent)


def test_a_plan_that_cannot_be_run_says_why(made):
    folder, _ = made
    broken = folder / "broken.yaml"
    broken.write_text((folder / "B-corrected.yaml").read_text().replace("variable: odi", "variable: shoe"))
    with pytest.raises(PlanFailed, match="unknown column 'shoe'"):
        run_plans([broken], workers=1, tell=lambda _what, _share: None)
    assert not (folder / "broken").exists()


def test_a_scan_that_is_whole_is_not_made_again(people, tmp_path):
    one = people[Cohort.A][0]
    scan = scan_of(one, tmp_path)
    scan.result.mkdir(parents=True)
    (scan.result / "result.json").write_text(
        json.dumps({"status": "needs_review", "reasons": [{"code": "REGISTRATION_POOR", "detail": "made up"}]})
    )
    write_recipe(one, tmp_path)
    (outcome,) = measure_scans([one], tmp_path, workers=1, tell=lambda _what, _share: None)
    assert outcome.again
    assert (outcome.status, outcome.reasons) == ("needs_review", ("REGISTRATION_POOR: made up",))
