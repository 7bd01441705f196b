"""The simulated trial: every fault once, the planned change, and a node that says of each visit what it must."""

import csv
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import Storescp

from config.precision_profiles import load_profile
from config.settings import load_settings
from config.trial_plans import ChangeRule, load_plan
from processing.change_limits import change_limits
from processing.precision_profile import read_precision
from processing.results import Level, Quantity, Region
from processing.visits import Cell, ChangeVerdict
from service.cli import main
from service.trials.simulation.expectation import Expected, expectations
from service.trials.simulation.folder import PRECISION, Size, limits_of, write_trial
from service.trials.simulation.scenario import VISITS, Fault, Scenario, draw_scenario
from service.trials.simulation.truth import drawn_truth
from tests.soak.campaign import Ticker
from tests.soak.trial import Campaign, Outcome, trial_node

LIMITS = limits_of(PRECISION)
SMALL = Size(n_slices=3, matrix=32)


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return draw_scenario(6, 1, 2 * LIMITS.same_scanner)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trial") / "trial"
    write_trial(folder, 6, 1, SMALL, tell=lambda *_: None)
    return folder


def _expected(scenario: Scenario) -> list[Expected]:
    truth = {scan.name: drawn_truth(scan, scenario.seed) for scan in scenario.scans}
    return list(expectations(scenario, truth, LIMITS))


def test_six_subjects_hold_every_fault(scenario: Scenario) -> None:
    planted = Counter(scan.fault for scan in scenario.scans if scan.fault is not Fault.NONE)
    assert set(planted) == set(Fault) - {Fault.NONE, Fault.MISSING}
    assert {name for name, n in planted.items() if n > 1} == {Fault.TRANSITIONAL}  # at all of its four visits
    assert [(subject.subject_id, visit) for subject, visit in scenario.missing] == [("01-001", "M6")]
    with pytest.raises(ValueError, match="at least 6"):
        draw_scenario(5, 1, 0.2)


def test_the_subjects_of_a_small_trial_are_the_first_of_a_large_one(scenario: Scenario) -> None:
    large = draw_scenario(9, 1, 2 * LIMITS.same_scanner)
    assert large.subjects[:6] == scenario.subjects
    assert large.strangers == scenario.strangers
    known = {(scan.subject.subject_id, scan.visit): (scan.at, scan.change, scan.phantom_visit) for scan in large.scans}
    for scan in scenario.scans:
        assert known[scan.subject.subject_id, scan.visit] == (scan.at, scan.change, scan.phantom_visit)


def test_exams_arrive_by_date_but_for_one_baseline_that_is_late(scenario: Scenario) -> None:
    assert [scan.arrives for scan in scenario.scans] == list(range(1, len(scenario.scans) + 1))
    order = [(scan.subject.subject_id, scan.visit) for scan in scenario.scans]
    place = order.index(("01-001", "M3"))
    assert order[place + 1] == ("01-001", "BL")
    others = [scan.at for scan in scenario.scans if (scan.subject.subject_id, scan.visit) != ("01-001", "BL")]
    assert others == sorted(others)


def test_scans_lie_in_their_windows_except_the_one_that_must_not(scenario: Scenario) -> None:
    windows = {name: (day - before, day + after) for name, day, before, after in VISITS}
    outside = []
    for scan in scenario.scans:
        first, last = windows[scan.visit]
        if not first <= (scan.at.date() - scan.subject.baseline_at.date()).days <= last:
            outside.append(scan.fault)
    assert outside == [Fault.OUTSIDE]


def test_limits_are_those_that_the_product_judges_by() -> None:
    known = read_precision(PRECISION).of(Cell(Level.L4L5, Region.NUCLEUS, Quantity.T2))
    assert known is not None
    rule = ChangeRule(precision=PRECISION)
    for widened, limit in ((False, LIMITS.same_scanner), (True, LIMITS.other_scanner)):
        found = change_limits(
            80.0, known, limit=rule.limit, confidence=0.95, upper_bound=True, n_baseline=1, widened=widened
        )
        assert found.upper_ms == pytest.approx(80.0 * math.expm1(limit), rel=1e-4)
        assert found.lower_ms == pytest.approx(80.0 * math.expm1(-limit), rel=1e-4)
    assert all(entry.n_pairs is None for entry in load_profile(PRECISION).entries)  # hence no upper bound


def test_the_planned_change_is_two_limits_and_none_where_none_is_planned(scenario: Scenario) -> None:
    effects = {one.subject_id: one.effect for one in scenario.subjects}
    plain = [one for one in _expected(scenario) if one.cell is not None and one.fault in (Fault.NONE, Fault.AGAIN)]
    assert len(plain) >= 4
    for one in plain:
        assert one.true_log_change == pytest.approx(effects[one.subject_id], abs=0.15 * LIMITS.same_scanner)
        changed = ChangeVerdict.INCREASE if effects[one.subject_id] > 0 else ChangeVerdict.DECREASE
        assert one.verdicts == (changed,)


def test_the_written_trial_is_in_order_by_the_commands_own_check(folder: Path) -> None:
    assert (
        main(["trial", "check", str(folder / "trials" / "simulated.yaml"), "--config", str(folder / "node.yaml")]) == 0
    )
    assert load_settings(folder / "node.yaml").trials_dir == folder / "trials"
    plan = load_plan(folder / "trials" / "simulated.yaml")
    with (folder / "subjects.csv").open() as stream:
        assert all(plan.is_subject(row["subject_id"]) for row in csv.DictReader(stream))
    assert len(list((folder / "scans").iterdir())) == 25


def test_what_cannot_be_simulated_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "something").touch()
    for arguments, told in (
        (["--out", str(tmp_path)], "is not empty"),
        (["--out", str(tmp_path / "new"), "--subjects", "3"], "at least 6"),
        (["--out", str(tmp_path / "new"), "--slices", "2"], "3 to 12"),
    ):
        assert main(["trial", "simulate", *arguments]) == 2
        assert told in capsys.readouterr().err


# --- through a node ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outcome(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """The whole trial by C-STORE; what the analysis would measure is taken from the truth, with a little error."""
    archive = Storescp(tmp_path_factory.mktemp("archive"))
    node = trial_node(folder, archive, "tests.soak.trial_results:analyse", completion={"idle_s": 2, "sweep_s": 0.2})
    with archive, node:
        yield Campaign(folder, node, Ticker("trial", 1e9), patience_s=4.0, with_reports=False).run()


@pytest.mark.slow
@pytest.mark.peers
def test_every_planted_fault_ends_in_its_expected_verdict(outcome: Outcome) -> None:
    wrong = [(line.expected["subject"], line.expected["visit"], line.faults, line.last) for line in outcome.lines]
    assert [one for one in wrong if one[2]] == []
    assert {line.expected["fault"] for line in outcome.lines} == {fault.value for fault in Fault}


@pytest.mark.slow
@pytest.mark.peers
def test_nothing_of_an_exam_that_does_not_count_leaves_the_node(outcome: Outcome) -> None:
    assert [check.what for check in outcome.checks if check.ok is False] == []
    (sent,) = [check for check in outcome.checks if check.what.startswith("objects sent of exams that are held")]
    assert sent.found == "0"
