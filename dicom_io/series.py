"""What has arrived of one exam -> what can be measured, what is set aside, what is missing. No file is touched here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import groupby
from types import MappingProxyType

from config.protocol_cards import ProtocolCard, Role
from dicom_io.headers import ImageFacts
from dicom_io.protocols import match_card, unusable_kind
from dicom_io.slice_grid import ImageSeries, MissingImage, PartialSeries, lay_out
from processing.refusal import Reason, ReasonCode, UnsuitableInput

SeriesImages = tuple[ImageFacts, ...]


class AssemblyState(StrEnum):
    """How far an exam is."""

    COMPLETE = "complete"  # the card's grid is full and the scanner's announced count is reached: nothing is awaited
    COMPLETE_WITHOUT_EVIDENCE = "complete_without_evidence"  # full, but more may follow: only silence can tell
    INCOMPLETE = "incomplete"
    UNKNOWN = "unknown"  # nothing here is of a known protocol
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ExamAssembly:
    """The state of one exam. In the complete states at least one of ``relaxometry`` and ``anatomy`` is there.

    ``reasons`` says why not, in the other states. ``set_aside``: (SOP instance UID, why) of images that are not used.
    """

    state: AssemblyState
    reasons: tuple[Reason, ...] = ()
    relaxometry: tuple[ImageSeries, ...] = ()
    anatomy: ImageSeries | None = None
    set_aside: tuple[tuple[str, str], ...] = ()
    missing: tuple[MissingImage, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether there is something to measure."""
        return self.state in (AssemblyState.COMPLETE, AssemblyState.COMPLETE_WITHOUT_EVIDENCE)

    @property
    def measured(self) -> tuple[ImageSeries, ...]:
        """The series that are measured: relaxometry (one, or T1rho and T2 on one grid) before anatomy."""
        return self.relaxometry or ((self.anatomy,) if self.anatomy else ())

    @property
    def images(self) -> tuple[ImageFacts, ...]:
        """All images that are measured."""
        return tuple(one for series in self.measured for one in series.instances)

    @property
    def series_uids(self) -> tuple[str, ...]:
        """The DICOM series that the measured images came in, sorted."""
        return tuple(sorted({one.series_uid for one in self.images}))

    @property
    def protocols(self) -> tuple[str, ...]:
        """The names of the protocol cards of what is measured."""
        return tuple(series.card.name for series in self.measured)

    @property
    def missing_text(self) -> str:
        """What is missing, in words, such as "83/84 images: missing 40 ms at slice 7"; empty when nothing is."""
        texts = (reason.detail for reason in self.reasons if reason.code is ReasonCode.SERIES_INCOMPLETE)
        return next(texts, "")


@dataclass(slots=True)
class _Findings:
    """What one look at the images collects on its way."""

    set_aside: dict[str, str] = field(default_factory=dict)
    problems: list[Reason] = field(default_factory=list)

    def leave(self, images: Sequence[ImageFacts], why: str) -> None:
        self.set_aside.update({one.sop_instance_uid: why for one in images})


def assemble_exam(
    facts: Sequence[ImageFacts],
    cards: Sequence[ProtocolCard],
    *,
    known_counts: Mapping[str, int] = MappingProxyType({}),
) -> ExamAssembly:
    """Find the relaxometry series and the anatomy among the images of one study.

    The answer depends only on which images there are, not on their order. Nothing is raised for images that cannot be
    measured: they are REFUSED, UNKNOWN or INCOMPLETE, with reasons.

    Args:
        facts: all images of one study that were received so far, in any order.
        cards: the protocol cards of the node.
        known_counts: SeriesInstanceUID -> how many objects the series has, as somebody else says.
    """
    findings = _Findings()
    facts = [
        replace(one, images_in_acquisition=known_counts[one.series_uid]) if one.series_uid in known_counts else one
        for one in facts
    ]
    try:
        images = _of_one_exam(facts)
        arrived = [tuple(group) for _, group in groupby(images, key=lambda one: one.series_uid)]
        by_card = _sort_by_card(arrived, cards, findings)
        relaxometry, has_evidence = _find_relaxometry(by_card, arrived, findings)
    except UnsuitableInput as refusal:
        return _ended(AssemblyState.REFUSED, [refusal.reason], findings)
    anatomy = _find_anatomy(by_card, arrived, findings)
    if isinstance(relaxometry, PartialSeries):
        return _waiting(relaxometry, findings)
    found_anatomy = anatomy if isinstance(anatomy, ImageSeries) else None
    if relaxometry is None and isinstance(anatomy, PartialSeries):
        return _waiting(anatomy, findings)
    if relaxometry is None and found_anatomy is None:
        refusals = [reason for reason in findings.problems if reason.code is not ReasonCode.PROTOCOL_UNKNOWN]
        state = AssemblyState.REFUSED if refusals else AssemblyState.UNKNOWN
        return _ended(state, refusals or findings.problems, findings)
    return ExamAssembly(
        # anatomy alone is never evidence: the relaxometry of the same study may still be on its way
        AssemblyState.COMPLETE if relaxometry and has_evidence else AssemblyState.COMPLETE_WITHOUT_EVIDENCE,
        relaxometry=(relaxometry,) if relaxometry else (),
        anatomy=found_anatomy,
        set_aside=tuple(sorted(findings.set_aside.items())),
    )


def _ended(state: AssemblyState, reasons: Sequence[Reason], findings: _Findings) -> ExamAssembly:
    return ExamAssembly(state, tuple(dict.fromkeys(reasons)), set_aside=tuple(sorted(findings.set_aside.items())))


def _waiting(series: PartialSeries, findings: _Findings) -> ExamAssembly:
    reason = Reason(ReasonCode.SERIES_INCOMPLETE, f"{series.card.name}: {series.text}")
    ended = _ended(AssemblyState.INCOMPLETE, [reason], findings)
    return replace(ended, missing=series.missing)


def _of_one_exam(facts: Sequence[ImageFacts]) -> list[ImageFacts]:
    """The images, each once, series by series.

    Raises:
        UnsuitableInput: IDENTITY_CONFLICT, INSTANCE_CONFLICT.
    """
    if not facts:
        raise UnsuitableInput(ReasonCode.SERIES_INCOMPLETE, "no image")
    n_patients, n_studies = len({one.patient_key for one in facts}), len({one.study_uid for one in facts})
    if n_patients > 1:
        raise UnsuitableInput(ReasonCode.IDENTITY_CONFLICT, f"images of {n_patients} patients in one exam")
    if n_studies > 1:
        text = f"images of {n_studies} studies; one exam is measured at a time"
        raise UnsuitableInput(ReasonCode.IDENTITY_CONFLICT, text)
    by_uid: dict[tuple[str, int], ImageFacts] = {}
    for one in sorted(facts, key=lambda one: (one.series_uid, *one.key, str(one.path))):
        other = by_uid.setdefault(one.key, one)
        if replace(one, path=other.path) != other:
            raise UnsuitableInput(ReasonCode.INSTANCE_CONFLICT, f"two different images have UID {one.sop_instance_uid}")
    return list(by_uid.values())


def _sort_by_card(
    arrived: Sequence[SeriesImages], cards: Sequence[ProtocolCard], findings: _Findings
) -> dict[str, tuple[ProtocolCard, list[SeriesImages]]]:
    """The usable images of each known series, under the name of their card, in the order of series numbers."""
    by_card: dict[str, tuple[ProtocolCard, list[SeriesImages]]] = {}
    for series in sorted(arrived, key=lambda images: (images[0].series_number or 0, images[0].series_uid)):
        usable = []
        for one in series:
            kind = unusable_kind(one)
            if kind is None:
                usable.append(one)
            else:
                findings.leave([one], kind)
        if not usable:
            text = f"series {series[0].series_description!r:.70} holds no acquired magnitude image"
            findings.problems.append(Reason(ReasonCode.PROTOCOL_UNKNOWN, text))
            continue
        try:
            card = match_card(usable, cards)
        except UnsuitableInput as refusal:
            findings.problems.append(refusal.reason)
            findings.leave(usable, refusal.reason.detail)
            continue
        by_card.setdefault(card.name, (card, []))[1].append(tuple(usable))
    return by_card


def _find_relaxometry(
    by_card: dict[str, tuple[ProtocolCard, list[SeriesImages]]], arrived: Sequence[SeriesImages], findings: _Findings
) -> tuple[ImageSeries | PartialSeries | None, bool]:
    """The relaxometry of the exam, and whether the scanner's announced count says that nothing more will come.

    One whole series is used and fragments beside it (an aborted scan) are set aside. Several fragments are joined if
    that makes one whole: anonymised GE exams have one series per spin-lock time.

    Raises:
        UnsuitableInput: as :func:`dicom_io.slice_grid.lay_out`; PROTOCOL_DEVIATION, when two could be measured.
    """
    found = [(card, series) for card, series in by_card.values() if card.role is Role.RELAXOMETRY]
    if not found:
        return None, False
    if len(found) > 1:
        names = " and ".join(card.name for card, _ in found)
        raise UnsuitableInput(
            ReasonCode.PROTOCOL_DEVIATION, f"one exam holds {names}; one protocol is measured at a time"
        )
    card, candidates = found[0]
    if len(candidates) == 1:
        return _lay_out_counted(card, candidates, arrived)
    whole = [(one, outcome) for one in candidates if (outcome := _if_whole(card, one, arrived)) is not None]
    if len(whole) > 1:
        numbers = " and ".join(str(one[0].series_number) for one, _ in whole)
        text = f"{len(whole)} whole series of {card.name} (series {numbers}): which one to measure is not known"
        raise UnsuitableInput(ReasonCode.PROTOCOL_DEVIATION, text)
    if not whole and _times_are_disjoint(candidates):
        return _lay_out_counted(card, candidates, arrived)
    chosen = whole[0][0] if whole else max(candidates, key=len)
    laid_out: tuple[ImageSeries | PartialSeries, bool]
    laid_out = whole[0][1] if whole else _lay_out_counted(card, [chosen], arrived)
    for one in candidates:
        if one is not chosen:
            findings.leave(one, f"a fragment; another series of {card.name} holds more")
    return laid_out


def _find_anatomy(
    by_card: dict[str, tuple[ProtocolCard, list[SeriesImages]]], arrived: Sequence[SeriesImages], findings: _Findings
) -> ImageSeries | PartialSeries | None:
    """The sagittal anatomy: of several whole series the last one, since a scan is repeated to better the one before."""
    chosen: ImageSeries | None = None
    partial: PartialSeries | None = None
    for card, candidates in by_card.values():
        if card.role is not Role.ANATOMY:
            continue
        for images in candidates:
            try:
                laid_out, _ = _lay_out_counted(card, [images], arrived)
            except UnsuitableInput as refusal:
                findings.problems.append(refusal.reason)
                findings.leave(images, f"{card.name}: {refusal.reason.detail}")
                continue
            if isinstance(laid_out, PartialSeries):
                partial = laid_out
                findings.leave(images, f"{card.name}: {laid_out.text}")
                continue
            if chosen is not None:
                findings.leave(chosen.instances, f"a later series of {card.name} is used")
            chosen = laid_out
    return chosen or partial


def _if_whole(
    card: ProtocolCard, images: SeriesImages, arrived: Sequence[SeriesImages]
) -> tuple[ImageSeries, bool] | None:
    try:
        laid_out, has_evidence = _lay_out_counted(card, [images], arrived)
    except UnsuitableInput:
        return None  # of several series one may be spoilt; if none is whole, the refusal is raised from the fullest
    return (laid_out, has_evidence) if isinstance(laid_out, ImageSeries) else None


def _times_are_disjoint(candidates: Sequence[SeriesImages]) -> bool:
    """Whether no echo time occurs in two series, as in exams with one series per spin-lock time."""
    times = [{one.echo_time_ms for one in images} for images in candidates]
    return sum(len(one) for one in times) == len(set().union(*times))


def _lay_out_counted(
    card: ProtocolCard, candidates: Sequence[SeriesImages], arrived: Sequence[SeriesImages]
) -> tuple[ImageSeries | PartialSeries, bool]:
    """Lay out the images of one or more series, and say whether the announced count is exactly what has arrived.

    ImagesInAcquisition (0020,1002) counts every image of a series, also phase images that are not used, or, where an
    anonymiser split a series, the images of all its parts. A count below what is there is no evidence of anything.
    """
    chosen_uids = {images[0].series_uid for images in candidates}
    counts = []
    for images in arrived:
        if images[0].series_uid in chosen_uids:
            announced = {one.images_in_acquisition for one in images}
            value = announced.pop() if len(announced) == 1 else None
            counts.append((len(images), value if value and value > 0 else None))
    n_arrived = sum(n for n, _ in counts)
    per_series = all(announced is not None and n == announced for n, announced in counts)
    in_all = {announced for _, announced in counts} == {n_arrived}
    has_evidence = per_series or in_all
    n_to_come = 0 if has_evidence else sum(max(0, announced - n) for n, announced in counts if announced is not None)
    joined = [one for candidate in candidates for one in candidate]
    return lay_out(joined, card, n_to_come=n_to_come), has_evidence
