"""The network against a site's own annotations, exam after exam, and the tables of the paper from what came out."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from config.settings import Settings
from models.inference import OnnxModel
from models.registry import ModelRecord
from processing.agreement import (
    DiscAgreement,
    DiscTimes,
    ExamAgreement,
    MeanInterval,
    TimesAgreement,
    compare_exam,
    compare_times,
    mean_interval,
    pooled_dice,
    rank_correlation,
    times_agreement,
)
from processing.agreement_figures import GradedDisc, Picture, take_picture
from processing.annotations import AnnotatedExam, AnnotationError
from processing.refusal import Reason, ReasonCode, UnsuitableInput
from processing.results import LUMBAR_LEVELS, DiscConfidence, DiscMask, Level, Quantity
from processing.segmentation import find_discs
from processing.volume import spacing_mm
from service.annotated_exams import AnnotatedSource, read_annotated_exam
from service.grades import Grades

#: Name of a metric in tables -> how it is taken from a disc. Differences read manual - automatic.
METRICS: dict[str, Callable[[DiscAgreement], float]] = {
    "dice": lambda disc: disc.dice,
    "msd_px": lambda disc: disc.msd_px,
    "msd_mm": lambda disc: disc.msd_mm,
    "volume_difference_percent": lambda disc: disc.volume_difference_percent,
    "sensitivity": lambda disc: disc.sensitivity,
    "precision": lambda disc: disc.precision,
}


class Outcome(StrEnum):
    """What became of one annotated exam."""

    COMPARED = "compared"
    REFUSED = "refused"  # by the node, with reasons; its discs count as not found
    UNNAMED = "unnamed"  # segmented, but the annotation does not name its discs
    UNREADABLE = "unreadable"


class Comparison(StrEnum):
    """How two masks are compared; never pooled with each other."""

    VOLUMES = "3-D"  # exams of several slices
    SINGLE_SLICES = "2-D"  # exams of one slice, as the paper's set A
    SLICES_OF_VOLUMES = "2-D slices of 3-D exams"


@dataclass(frozen=True, slots=True, eq=False)
class ExamOutcome:
    """One annotated exam after the network saw it. ``member``: the network of the ensemble, None for all of them."""

    subject: str
    visit: str
    source: str
    outcome: Outcome
    reasons: tuple[Reason, ...]
    annotated: tuple[Level, ...]  # L5S1 to L1L2, as far as annotated
    missing: tuple[Level, ...]
    n_slices: int
    member: int | None
    cpu_s: float
    agreement: ExamAgreement | None = None
    times: tuple[DiscTimes, ...] = ()
    confidence: Mapping[Level, DiscConfidence] = field(default_factory=dict)
    picture: Picture | None = None

    @property
    def name(self) -> str:
        """Subject and visit."""
        return f"{self.subject}_{self.visit}" if self.visit else self.subject


@dataclass(frozen=True, slots=True)
class Table2Row:
    """One cell of Table 2; ``level`` None: all levels together."""

    comparison: Comparison
    metric: str
    level: Level | None
    interval: MeanInterval


@dataclass(frozen=True, slots=True)
class Table3Row:
    """One line of Table 3; ``level`` None: all levels together."""

    quantity: Quantity
    level: Level | None
    agreement: TimesAgreement


@dataclass(frozen=True, slots=True)
class Summary:
    """The evaluation in a few numbers. ``found_share``: of all discs of exams with names, refused exams included."""

    n_subjects: int
    n_exams: int
    outcomes: Mapping[str, int]
    refusals: Mapping[str, int]
    n_annotated: int
    n_in_refused_exams: int
    n_found: int
    n_wrongly_named: int
    n_unannotated: int
    pooled_dice: float
    mean_absolute_volume_difference_percent: float
    entropy_dice_spearman: float
    n_entropy: int
    member_dice_spearman: float  # agreement of the members with each other, against Dice; NaN for one network
    n_member_dice: int
    cpu_s_per_slice: float

    @property
    def found_share(self) -> float:
        """Discs found, of all that are annotated; NaN without any."""
        return self.n_found / self.n_annotated if self.n_annotated else float("nan")


class Networks:
    """The open networks: the whole ensemble, or for a subject of a fold the one member that never saw it."""

    def __init__(self, record: ModelRecord, folds: Sequence[Sequence[str]] | None) -> None:
        """Open nothing yet.

        Raises:
            ValueError: the ensemble does not have one member for each fold.
        """
        if folds is not None and len(folds) != len(record.members):
            raise ValueError(
                f"{len(folds)} folds for {len(record.members)} networks of {record.name}: not of this model"
            )
        self._record = record
        self._fold_of = None if folds is None else {name: k for k, group in enumerate(folds) for name in group}
        self._open: dict[int | None, OnnxModel] = {}

    def open_for(self, subjects: Sequence[str]) -> None:
        """Open the networks that these subjects need, so that what is wrong shows before any work.

        Raises:
            ValueError: naming the subjects that are in no fold: it is not known which network has not seen them.
            ModelError: a network cannot be opened.
        """
        if self._fold_of is not None:
            unknown = sorted(set(subjects) - self._fold_of.keys())
            if unknown:
                raise ValueError(f"in no fold: subject {', '.join(unknown)}; leave the folds out for new subjects")
        for subject in subjects:
            self.of(subject)

    def of(self, subject: str) -> tuple[int | None, OnnxModel]:
        """The member's index (None: all) and the open network for a subject."""
        member = None if self._fold_of is None else self._fold_of[subject]
        if member not in self._open:
            self._open[member] = OnnxModel(self._record if member is None else self._record.only(member))
        return member, self._open[member]


def evaluate_source(source: AnnotatedSource, networks: Networks, settings: Settings) -> ExamOutcome:
    """Read one exam, segment it and compare; an exam that cannot be compared tells why."""
    member, model = networks.of(source.subject)
    try:
        exam = read_annotated_exam(source)
    except UnsuitableInput as error:
        return _without_exam(source, member, error.reason)
    except AnnotationError as error:
        return _without_exam(source, member, Reason(ReasonCode.UNREADABLE, str(error)))
    except OSError as error:
        return _without_exam(source, member, Reason(ReasonCode.UNREADABLE, f"a file cannot be read: {error.strerror}"))
    start = time.process_time()
    try:
        mask = find_discs(exam.image, model, threshold=settings.segmentation.threshold)
    except UnsuitableInput as refusal:
        return _outcome(exam, Outcome.REFUSED, (refusal.reason,), member, time.process_time() - start)
    cpu_s = time.process_time() - start
    if not exam.has_levels:
        return _outcome(exam, Outcome.UNNAMED, mask.reasons, member, cpu_s)
    return _compared(exam, mask, member, cpu_s)


def _compared(exam: AnnotatedExam, mask: DiscMask, member: int | None, cpu_s: float) -> ExamOutcome:
    spacing = spacing_mm(exam.image.affine)
    return replace(
        _outcome(exam, Outcome.COMPARED, mask.reasons, member, cpu_s),
        agreement=compare_exam(exam.levels, mask.levels, spacing),
        times=tuple(row for stack in exam.stacks for row in compare_times(stack, exam.levels, mask.levels)),
        confidence={one.level: one for one in mask.confidence},
        picture=take_picture(exam.image.array, exam.levels, mask.levels, mask.probability, spacing),
    )


def _outcome(
    exam: AnnotatedExam, outcome: Outcome, reasons: tuple[Reason, ...], member: int | None, cpu_s: float
) -> ExamOutcome:
    annotated = tuple(level for level in LUMBAR_LEVELS if exam.has_levels and level not in exam.missing)
    return ExamOutcome(
        subject=exam.subject,
        visit=exam.visit,
        source=exam.source,
        outcome=outcome,
        reasons=reasons,
        annotated=annotated,
        missing=exam.missing,
        n_slices=len(exam.image.array),
        member=member,
        cpu_s=cpu_s,
    )


def _without_exam(source: AnnotatedSource, member: int | None, reason: Reason) -> ExamOutcome:
    return ExamOutcome(
        source.subject, source.visit, "", Outcome.UNREADABLE, (reason,), (), (), n_slices=0, member=member, cpu_s=0.0
    )


def summarise(outcomes: Sequence[ExamOutcome]) -> Summary:
    """The few numbers."""
    compared = [one for one in outcomes if one.agreement is not None]
    agreements = [one.agreement for one in compared if one.agreement is not None]
    discs = [disc for one in agreements for disc in one.discs]
    refused = [one for one in outcomes if one.outcome is Outcome.REFUSED]
    rho, n_entropy = _against_dice(outcomes, lambda confidence: confidence.ring_entropy)
    member_rho, n_member_dice = _against_dice(outcomes, lambda confidence: confidence.member_dice)
    n_slices = sum(one.n_slices for one in outcomes)
    codes = [one.reasons[0].code.value for one in refused]
    n_in_refused = sum(len(one.annotated) for one in refused)
    return Summary(
        n_subjects=len({one.subject for one in outcomes}),
        n_exams=len(outcomes),
        outcomes={kind.value: sum(one.outcome is kind for one in outcomes) for kind in Outcome},
        refusals={code: codes.count(code) for code in sorted(set(codes))},
        n_annotated=len(discs) + n_in_refused,
        n_in_refused_exams=n_in_refused,
        n_found=sum(disc.found for disc in discs),
        n_wrongly_named=sum(disc.wrongly_named for disc in discs),
        n_unannotated=sum(len(one.unannotated) for one in agreements),
        pooled_dice=pooled_dice(agreements),
        mean_absolute_volume_difference_percent=mean_interval([abs(d.volume_difference_percent) for d in discs]).mean,
        entropy_dice_spearman=rho,
        n_entropy=n_entropy,
        member_dice_spearman=member_rho,
        n_member_dice=n_member_dice,
        cpu_s_per_slice=sum(one.cpu_s for one in outcomes) / n_slices if n_slices else float("nan"),
    )


def _against_dice(
    outcomes: Sequence[ExamOutcome], score: Callable[[DiscConfidence], float | None]
) -> tuple[float, int]:
    """Spearman of a confidence score with Dice, over the discs that the network gave the name of the annotation."""
    pairs = [
        (score(one.confidence[disc.level]), disc.dice)
        for one in outcomes
        if one.agreement is not None
        for disc in one.agreement.discs
        if disc.level in one.confidence
    ]
    known = [(value, dice) for value, dice in pairs if value is not None]
    return rank_correlation([value for value, _ in known], [dice for _, dice in known])


def discs_of(outcomes: Sequence[ExamOutcome], comparison: Comparison) -> list[DiscAgreement]:
    """All discs that were compared in one way."""
    found: list[DiscAgreement] = []
    for one in outcomes:
        if one.agreement is None:
            continue
        if comparison is Comparison.SLICES_OF_VOLUMES:
            found += one.agreement.slices if one.n_slices > 1 else ()
        elif (one.n_slices > 1) is (comparison is Comparison.VOLUMES):
            found += one.agreement.discs
    return found


def table_2(outcomes: Sequence[ExamOutcome]) -> list[Table2Row]:
    """Mean with 95 % confidence interval of each metric, per level and together (paper, Table 2).

    A missing disc has Dice and sensitivity 0 and a volume difference of 100 %; its surface distance and precision are
    undefined and not in the mean: n tells. The intervals take discs, and slices, as independent; those of one spine are
    not quite.
    """
    rows = []
    for comparison in Comparison:
        discs = discs_of(outcomes, comparison)
        if not discs:
            continue
        for metric, value in METRICS.items():
            for level in (*LUMBAR_LEVELS, None):
                chosen = [value(disc) for disc in discs if level in (None, disc.level)]
                rows.append(Table2Row(comparison, metric, level, mean_interval(chosen)))
    return rows


def table_3(outcomes: Sequence[ExamOutcome]) -> list[Table3Row]:
    """Manual against automatic times, per level and together (paper, Table 3); empty without echoes."""
    times = [row for one in outcomes for row in one.times]
    return [
        Table3Row(quantity, level, times_agreement([row for row in own if level in (None, row.level)]))
        for quantity in Quantity
        if (own := [row for row in times if row.quantity is quantity])
        for level in (*LUMBAR_LEVELS, None)
    ]


def best_median_worst(outcomes: Sequence[ExamOutcome]) -> list[tuple[str, Picture]]:
    """Up to three exams by their pooled Dice, with a title each."""
    ranked = sorted(
        ((pooled_dice([one.agreement]), one.name, one.picture) for one in outcomes if one.agreement and one.picture),
        key=lambda entry: (-entry[0], entry[1]),
    )
    if not ranked:
        return []
    last = len(ranked) - 1
    words = {0: "best"}
    if last > 1:
        words[last // 2] = "median"
    if last > 0:
        words[last] = "worst"
    return [(f"{word}: {ranked[k][1]}\nDice {ranked[k][0]:.3f}", ranked[k][2]) for k, word in words.items()]


def graded_discs(outcomes: Sequence[ExamOutcome], grades: Grades) -> list[GradedDisc]:
    """The compared discs that have a grade."""
    found = []
    for one in outcomes:
        for disc in one.agreement.discs if one.agreement else ():
            grade = grades.get((one.subject, one.visit, disc.level), grades.get((one.subject, "", disc.level)))
            if grade is not None:
                own = {row.quantity: row.manual_ms - row.automatic_ms for row in one.times if row.level is disc.level}
                found.append(GradedDisc(grade, disc.level, disc.dice, disc.msd_px, own))
    return found
