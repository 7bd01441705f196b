"""What has arrived of one exam -> what can be measured, what is set aside, what is missing. No file is touched here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import groupby

from config.protocol_cards import ProtocolCard, Role
from config.settings import Repeats
from dicom_io.completeness import Arrived
from dicom_io.headers import ImageFacts
from dicom_io.missing_images import MissingImage
from dicom_io.own_first_images import parted
from dicom_io.protocols import match_card, unusable_kind
from dicom_io.scans import Images, find_scan, lay_out_counted
from dicom_io.shared_grid import on_one_grid
from dicom_io.slice_grid import ImageSeries, PartialSeries
from processing.refusal import Reason, ReasonCode, UnsuitableInput


class AssemblyState(StrEnum):
    """How far an exam is."""

    COMPLETE = "complete"  # the card's grid is full, and there is evidence that nothing more is on its way
    COMPLETE_WITHOUT_EVIDENCE = "complete_without_evidence"  # full, but more may follow: only silence can tell
    INCOMPLETE = "incomplete"
    UNKNOWN = "unknown"  # nothing here is of a known protocol
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ExamAssembly:
    """The state of one exam. In the complete states at least one of ``relaxometry`` and ``anatomy`` is there.

    ``reasons`` says why not, in the other states. ``set_aside``: ((SOP instance UID, frame), why) of
    images that are not used, under their :attr:`ImageFacts.key <dicom_io.headers.ImageFacts.key>`.
    """

    state: AssemblyState
    reasons: tuple[Reason, ...] = ()
    relaxometry: tuple[ImageSeries, ...] = ()
    anatomy: ImageSeries | None = None
    set_aside: tuple[tuple[tuple[str, int], str], ...] = ()
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
        return tuple(dict.fromkeys(series.card.name for series in self.measured))

    @property
    def missing_text(self) -> str:
        """What is missing, in words, such as "83/84 images: missing 40 ms at slice 7"; empty when nothing is."""
        texts = [reason.detail for reason in self.reasons if reason.code is ReasonCode.SERIES_INCOMPLETE]
        return "; ".join(texts)


@dataclass(slots=True)
class _Findings:
    """What one look at the images collects on its way."""

    set_aside: dict[tuple[str, int], str] = field(default_factory=dict)
    problems: list[Reason] = field(default_factory=list)
    unmatched: list[Images] = field(default_factory=list)  # usable images of series that no card fits

    def leave(self, images: Sequence[ImageFacts], why: str) -> None:
        self.set_aside.update({one.key: why for one in images})

    def left(self) -> tuple[tuple[tuple[str, int], str], ...]:
        return tuple(sorted(self.set_aside.items()))


_ByCard = dict[str, tuple[ProtocolCard, list[Images]]]


def assemble_exam(
    facts: Sequence[ImageFacts],
    cards: Sequence[ProtocolCard],
    *,
    repeats: Repeats = Repeats.HOLD,
    known_counts: Mapping[str, int] | None = None,
) -> ExamAssembly:
    """Find the relaxometry and the anatomy among the images of one exam.

    The answer depends only on which images there are, not on their order. Nothing is raised for images that cannot be
    measured: they are REFUSED, UNKNOWN or INCOMPLETE, with reasons.

    Images of several studies are one exam only if none of the studies is whole by itself, all are of one patient and
    day, and together they make one scan of a card (anonymised exams may have a study for each spin-lock time).

    Args:
        facts: all images that were received so far, in any order.
        cards: the protocol cards of the node.
        repeats: what to do when a scan is there twice.
        known_counts: how many objects a series has, by SeriesInstanceUID, as a source PACS or the sender says. As many
            as have arrived is evidence that a full grid is all; more are awaited.
    """
    try:
        images = _of_one_patient(facts)
    except UnsuitableInput as refusal:
        return _ended(AssemblyState.REFUSED, [refusal.reason], _Findings())
    counts = dict(known_counts or {})
    studies = {uid: tuple(group) for uid, group in groupby(images, key=lambda one: one.study_uid)}
    if len(studies) > 1:
        return _assemble_studies(studies, cards, repeats, counts)
    return _assemble(images, cards, repeats, counts)


def _of_one_patient(facts: Sequence[ImageFacts]) -> Images:
    """The images, each once, study by study and series by series.

    Raises:
        UnsuitableInput: IDENTITY_CONFLICT, INSTANCE_CONFLICT.
    """
    if not facts:
        raise UnsuitableInput(ReasonCode.SERIES_INCOMPLETE, "no image")
    n_patients = len({one.patient_key for one in facts})
    if n_patients > 1:
        raise UnsuitableInput(ReasonCode.IDENTITY_CONFLICT, f"images of {n_patients} patients in one exam")
    n_studies = len({one.study_uid for one in facts})
    if len({(one.study_uid, one.series_uid) for one in facts}) > len({one.series_uid for one in facts}):
        raise UnsuitableInput(ReasonCode.IDENTITY_CONFLICT, f"images of {n_studies} studies in one series")
    by_uid: dict[tuple[str, int], ImageFacts] = {}
    for one in sorted(facts, key=lambda one: (one.study_uid, one.series_uid, *one.key, str(one.path))):
        other = by_uid.setdefault(one.key, one)
        if other is not one and replace(one, path=other.path) != other:
            raise UnsuitableInput(ReasonCode.INSTANCE_CONFLICT, f"two different images have UID {one.sop_instance_uid}")
    return tuple(by_uid.values())


def _assemble_studies(
    studies: Mapping[str, Images], cards: Sequence[ProtocolCard], repeats: Repeats, counts: Mapping[str, int]
) -> ExamAssembly:
    """One study that is whole by itself, or all of them joined."""
    images = tuple(one for of_study in studies.values() for one in of_study)
    if len({one.study_date for one in images}) > 1:
        text = f"images of {len(studies)} studies of different days; one exam is measured at a time"
        return _ended(AssemblyState.REFUSED, [Reason(ReasonCode.IDENTITY_CONFLICT, text)], _Findings())
    alone = {uid: _assemble(of_study, cards, repeats, counts) for uid, of_study in studies.items()}
    whole = {uid: exam for uid, exam in alone.items() if exam.relaxometry}
    if not whole:
        joined = _assemble(images, cards, Repeats.HOLD, counts)
        if joined.relaxometry or not joined.is_complete:
            return joined
        whole = {uid: exam for uid, exam in alone.items() if exam.is_complete}  # anatomy alone
    if len(whole) > 1:
        text = f"{len(whole)} studies hold a whole exam each: {' and '.join(sorted(whole))}; one is measured at a time"
        return _ended(AssemblyState.REFUSED, [Reason(ReasonCode.PROTOCOL_DEVIATION, text)], _Findings())
    ((chosen, exam),) = whole.items()
    others = {
        one.key: "of another study, beside one that holds a whole exam"
        for uid, of_study in studies.items()
        if uid != chosen
        for one in of_study
    }
    return replace(exam, set_aside=tuple(sorted({**dict(exam.set_aside), **others}.items())))


def _assemble(
    images: Images, cards: Sequence[ProtocolCard], repeats: Repeats, counts: Mapping[str, int]
) -> ExamAssembly:
    """The exam that images, each there once and sorted by series, make up."""
    findings = _Findings()
    arrived = Arrived({uid: tuple(group) for uid, group in groupby(images, key=lambda one: one.series_uid)}, counts)
    by_card = _sort_by_card(arrived, cards, findings)
    try:
        relaxometry, has_evidence = _find_relaxometry(by_card, arrived, repeats, findings)
    except UnsuitableInput as refusal:
        return _ended(AssemblyState.REFUSED, [refusal.reason], findings)
    anatomy = _find_anatomy(by_card, arrived, findings)
    partial = [one for one in relaxometry if isinstance(one, PartialSeries)]
    if partial:
        measured = [images for card, several in by_card.values() if card.role is Role.RELAXOMETRY for images in several]
        hint = _lookalikes(findings.unmatched, measured)
        return _waiting([replace(partial[0], text=partial[0].text + hint), *partial[1:]], findings)
    whole = tuple(one for one in relaxometry if isinstance(one, ImageSeries))
    found_anatomy = anatomy if isinstance(anatomy, ImageSeries) else None
    if not whole and isinstance(anatomy, PartialSeries):
        return _waiting([anatomy], findings)
    if not whole and found_anatomy is None:
        refusals = [reason for reason in findings.problems if reason.code is not ReasonCode.PROTOCOL_UNKNOWN]
        state = AssemblyState.REFUSED if refusals else AssemblyState.UNKNOWN
        return _ended(state, refusals or findings.problems, findings)
    return ExamAssembly(
        # anatomy alone is never evidence: the relaxometry of the same study may still be on its way
        AssemblyState.COMPLETE if whole and has_evidence else AssemblyState.COMPLETE_WITHOUT_EVIDENCE,
        relaxometry=whole,
        anatomy=found_anatomy,
        set_aside=findings.left(),
    )


def _ended(state: AssemblyState, reasons: Sequence[Reason], findings: _Findings) -> ExamAssembly:
    return ExamAssembly(state, tuple(dict.fromkeys(reasons)), set_aside=findings.left())


def _waiting(series: Sequence[PartialSeries], findings: _Findings) -> ExamAssembly:
    reasons = [Reason(ReasonCode.SERIES_INCOMPLETE, f"{one.card.name}: {one.text}") for one in series]
    missing = tuple(image for one in series for image in one.missing)
    return replace(_ended(AssemblyState.INCOMPLETE, reasons, findings), missing=missing)


def _lookalikes(unmatched: Sequence[Images], known: Sequence[Images]) -> str:
    """Names the series that no card fits and that lie as one that is measured does: what is missing may be in them."""

    def plane(one: ImageFacts) -> tuple[object, ...]:
        return one.rows, one.columns, one.pixel_spacing_mm, one.orientation, one.frame_of_reference_uid

    planes = {plane(images[0]) for images in known if images[0].orientation}
    alike = [images[0].series_description for images in unmatched if plane(images[0]) in planes]
    names = ", ".join(repr(name)[:72] for name in dict.fromkeys(alike[:3]))
    return f"; on the same planes lies series {names}, which no protocol card fits" if alike else ""


def _sort_by_card(arrived: Arrived, cards: Sequence[ProtocolCard], findings: _Findings) -> _ByCard:
    """The usable images of each known series, under the name of their scan's card, in the order of series numbers."""
    by_card: _ByCard = {}
    for series in sorted(
        arrived.series.values(), key=lambda images: (images[0].series_number or 0, images[0].series_uid)
    ):
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
            findings.unmatched.append(tuple(usable))
            continue
        by_card.setdefault(card.name, (card, []))[1].append(tuple(usable))
    return {key: (part, images) for card, several in by_card.values() for key, part, images in parted(card, several)}


def _find_relaxometry(
    by_card: _ByCard, arrived: Arrived, repeats: Repeats, findings: _Findings
) -> tuple[tuple[ImageSeries | PartialSeries, ...], bool]:
    """The scans of the exam, that of T1rho first, and whether there is evidence that nothing more will come.

    Raises:
        UnsuitableInput: as :func:`dicom_io.scans.find_scan`; PROTOCOL_DEVIATION, when there are scans of protocols that
            are not measured together; GEOMETRY_INCONSISTENT, when those that are do not lie on one grid.
    """
    found = {name: card for name, (card, _) in by_card.items() if card.role is Role.RELAXOMETRY}
    if not found:
        return (), False
    if any(not found.keys() <= {name, *card.together_with} for name, card in found.items()):
        names = " and ".join(sorted(found))
        raise UnsuitableInput(
            ReasonCode.PROTOCOL_DEVIATION, f"one exam holds {names}; one protocol is measured at a time"
        )
    scans: list[ImageSeries | PartialSeries] = []
    has_evidence = True
    for name, card in sorted(found.items(), key=lambda one: (not one[1].times.t1rho_ms, one[0])):
        scan, is_evident = find_scan(card, by_card[name][1], arrived, repeats, findings.leave)
        scans.append(scan)
        has_evidence = has_evidence and is_evident
    absent = {other: card for card in found.values() for other in card.together_with if other not in found}
    for other, card in sorted(absent.items()):
        text = f"the scan of {other}, which belongs to it, has not come"
        scans.append(PartialSeries(card, 0, (), text))
    return on_one_grid(scans, is_evident=has_evidence), has_evidence


def _find_anatomy(by_card: _ByCard, arrived: Arrived, findings: _Findings) -> ImageSeries | PartialSeries | None:
    """The sagittal anatomy: of several whole series the last one, since a scan is repeated to better the one before."""
    chosen: ImageSeries | None = None
    partial: PartialSeries | None = None
    for card, candidates in by_card.values():
        if card.role is not Role.ANATOMY:
            continue
        for images in candidates:
            try:
                laid_out, _ = lay_out_counted(images, card, arrived)
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
