"""What is counted, and how, from made-up outcomes of exams."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from config.settings import Settings
from models.registry import load_model
from processing.agreement import DiscAgreement, DiscTimes, ExamAgreement
from processing.agreement_figures import Picture
from processing.refusal import Reason, ReasonCode
from processing.results import LUMBAR_LEVELS, DiscConfidence, Level, Quantity
from service.evaluation import (
    Comparison,
    ExamOutcome,
    Outcome,
    best_median_worst,
    discs_of,
    graded_discs,
    summarise,
    table_2,
)
from service.evaluation_files import assemble_evaluation, write_evaluation
from service.evaluation_report import report_page, report_text
from service.grades import read_grades

EMPTY = np.zeros((2, 2), np.uint8)
PICTURE = Picture(EMPTY, EMPTY, EMPTY, EMPTY, (1.0, 1.0))


def disc(level: Level, dice: float, named: Level | None = None, *, slice_index: int | None = None) -> DiscAgreement:
    return DiscAgreement(level, slice_index, 100, 90, dice, 0.5, 1.0, 10.0, 0.9, 0.95, named or level)


def compared(subject: str, dices: list[float], *, n_slices: int = 3, common: int = 80, visit: str = "") -> ExamOutcome:
    discs = tuple(disc(level, dice) for level, dice in zip(LUMBAR_LEVELS, dices, strict=False))
    slices = tuple(disc(one.level, one.dice - 0.1, slice_index=k) for k in range(n_slices) for one in discs)
    return ExamOutcome(
        subject,
        visit,
        "site",
        Outcome.COMPARED,
        (),
        tuple(one.level for one in discs),
        (),
        n_slices=n_slices,
        member=None,
        cpu_s=1.5,
        agreement=ExamAgreement(discs, slices, (), (100, 90, common)),
        confidence={
            one.level: DiscConfidence(one.level, 0.9, 1 - one.dice, False, 90, member_dice=one.dice**2 if k else None)
            for k, one in enumerate(discs)
        },
        picture=PICTURE,
    )


def refused(subject: str, code: ReasonCode) -> ExamOutcome:
    reasons = (Reason(code, "why"),)
    return ExamOutcome(subject, "", "site", Outcome.REFUSED, reasons, LUMBAR_LEVELS, (), 3, None, 0.5)


def test_exams_of_one_and_of_several_slices_are_never_pooled():
    outcomes = [compared("A", [0.9, 0.8]), compared("B", [0.7, 0.6], n_slices=1)]
    assert [one.dice for one in discs_of(outcomes, Comparison.VOLUMES)] == [0.9, 0.8]
    assert [one.dice for one in discs_of(outcomes, Comparison.SINGLE_SLICES)] == [0.7, 0.6]
    assert [one.dice for one in discs_of(outcomes, Comparison.SLICES_OF_VOLUMES)] == pytest.approx([0.8, 0.7] * 3)
    cells = {(one.comparison, one.metric, one.level): one.interval for one in table_2(outcomes)}
    assert cells[Comparison.VOLUMES, "dice", None].mean == pytest.approx(0.85)
    assert cells[Comparison.SINGLE_SLICES, "dice", Level.L5S1].mean == 0.7
    assert cells[Comparison.SLICES_OF_VOLUMES, "dice", Level.L4L5].n == 3
    assert cells[Comparison.VOLUMES, "dice", Level.L1L2].n == 0
    assert math.isnan(cells[Comparison.VOLUMES, "dice", Level.L1L2].mean)


def test_discs_of_refused_exams_count_as_not_found():
    outcomes = [
        compared("A", [0.9, 0.8, 0.7, 0.6, 0.5], visit="1"),
        compared("A", [0.9, 0.8, 0.7, 0.6, 0.5], visit="2", common=85),
        refused("B", ReasonCode.LEVELS_AMBIGUOUS),
        refused("C", ReasonCode.LEVELS_AMBIGUOUS),
        refused("D", ReasonCode.SEGMENTATION_UNCERTAIN),
        ExamOutcome("E", "", "", Outcome.UNREADABLE, (), (), (), 0, None, 0.0),
    ]
    found = summarise(outcomes)
    assert (found.n_subjects, found.n_exams) == (5, 6)
    assert found.outcomes == {"compared": 2, "refused": 3, "unnamed": 0, "unreadable": 1}
    assert found.refusals == {"LEVELS_AMBIGUOUS": 2, "SEGMENTATION_UNCERTAIN": 1}
    assert (found.n_annotated, found.n_in_refused_exams, found.n_found) == (25, 15, 10)
    assert found.found_share == 0.4
    assert found.pooled_dice == pytest.approx(2 * 165 / 380)
    assert found.entropy_dice_spearman == pytest.approx(-1.0)
    assert found.n_entropy == 10
    assert found.member_dice_spearman == pytest.approx(1.0)
    assert found.n_member_dice == 8
    assert found.cpu_s_per_slice == pytest.approx((3.0 + 1.5) / 15)
    assert found.n_wrongly_named == 0


@pytest.fixture(scope="module")
def evaluation():
    """Two exams compared and one refused, put together with made-up times."""
    times = tuple(DiscTimes(level, Quantity.T2, 50.0 + level, 50.0 + 1.5 * level - 1.5) for level in LUMBAR_LEVELS)
    outcomes = [
        replace(compared("A", [0.9, 0.8, 0.7, 0.6, 0.5]), times=times),
        replace(compared("<B&C>", [0.8, 0.8, 0.7, 0.6, 0.5]), missing=(Level.L1L2,)),
        refused("D", ReasonCode.SEGMENTATION_UNCERTAIN),
    ]
    return assemble_evaluation(
        outcomes,
        load_model(Settings().segmentation.model),
        out_of_fold=False,
        threshold=0.5,
        software="discnode 0",
        settings_digest="0" * 16,
        grades=None,
    )


def test_the_tables_are_printed_with_their_intervals(evaluation):
    text = report_text(evaluation)
    dice = next(line for line in text.splitlines() if line.startswith("Dice coefficient  "))
    # 0.85 +- t(0.975, 1) * 0.0707 / sqrt 2 = 12.7062 * 0.05
    assert dice.split()[2:5] == ["0.850", "(0.215,", "1.485)"]
    assert next(line for line in text.splitlines() if line.startswith("discs  ")).split() == ["discs", *"22222", "10"]
    # differences -0.5 level + 1.5: 1.0, 0.5, 0, -0.5, -1.0
    line = next(line for line in text.splitlines() if line.startswith("T2 all"))
    assert line.split()[2:4] == ["5", "1.000"]
    assert line.split()[5] == "+0.00"
    assert "annotated discs found: 10 of 15 (66.7 %); 10 of 10 in the exams that were not refused" in text
    assert "-0.00" not in text
    assert text.endswith("Research use only\n")


def test_the_page_holds_what_was_not_compared_and_no_foreign_markup(evaluation):
    page = report_page(evaluation)
    assert "&lt;B&amp;C&gt;" in page
    assert "<B&C>" not in page
    assert "not annotated: L1/L2" in page
    assert "SEGMENTATION_UNCERTAIN: why" in page
    assert "flatter" in page  # no folds: said


def test_a_second_evaluation_replaces_the_figures_of_the_first(evaluation, tmp_path):
    (tmp_path / "figureS3.png").write_bytes(b"old")
    write_evaluation(evaluation, "page", tmp_path)
    assert not (tmp_path / "figureS3.png").exists()
    assert (tmp_path / "report.html").read_text() == "page"
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert content["exams"][1]["missing"] == ["L1L2"]
    assert content["summary"]["member_dice_spearman"] == pytest.approx(1.0)
    assert content["table3"][0]["p_paired_t"] is None  # one disc: undefined


def test_nothing_at_all_is_told_as_undefined():
    found = summarise([])
    assert math.isnan(found.found_share)
    assert math.isnan(found.pooled_dice)
    assert table_2([]) == []
    assert best_median_worst([]) == []


@pytest.mark.parametrize(
    ("commons", "words"),
    [
        ([80], ["best: S0"]),
        ([70, 80], ["best: S1", "worst: S0"]),
        ([70, 80, 60], ["best: S1", "median: S0", "worst: S2"]),
        ([70, 80, 60, 75, 10], ["best: S1", "median: S0", "worst: S4"]),
    ],
)
def test_the_shown_exams_are_the_best_the_middle_and_the_worst(commons, words):
    outcomes = [compared(f"S{k}", [0.9], common=common) for k, common in enumerate(commons)]
    shown = best_median_worst([*outcomes, refused("R", ReasonCode.SEGMENTATION_UNCERTAIN)])
    assert [title.splitlines()[0] for title, _ in shown] == [*dict.fromkeys(words)]


def test_a_grade_holds_for_all_visits_unless_one_has_its_own(tmp_path):
    path = tmp_path / "grades.csv"
    path.write_text("subject,visit,level,grade\nA,,L5/S1,2\nA,2,L5-S1,3\nA,,2,4\nB,,l4l5,5\n", encoding="utf-8")
    grades = read_grades(path)
    assert grades["B", "", Level.L4L5] == 5
    outcomes = [compared("A", [0.9, 0.8, 0.7], visit=visit) for visit in ("1", "2")]
    assert [(one.level, one.grade) for one in graded_discs(outcomes, grades)] == [
        (Level.L5S1, 2),
        (Level.L4L5, 4),
        (Level.L5S1, 3),
        (Level.L4L5, 4),
    ]
