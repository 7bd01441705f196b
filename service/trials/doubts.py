"""Why an exam is not simply taken for a subject's visit: each doubt has a kind, a reason code, and words for people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from processing.refusal import ReasonCode
from processing.spine_shape import MOST_DISTANCE, shape_distance, shifted_levels
from service.states import ExamState, VisitState
from service.trials.candidates import Candidate, Identity, Result, Subject
from service.trials.freezing import what_differs
from service.trials.registry import Trial

_REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Doubt:
    """``kind``: what a person may accept; "" for what only another scan, another result or another word can settle."""

    kind: str
    code: ReasonCode
    detail: str


def identity_doubts(
    subject: Subject, one: Candidate, known: Identity, others: Mapping[str, Sequence[str]]
) -> list[Doubt]:
    """Whether it may be another person's exam.

    Args:
        subject: whose it is said to be.
        one: the exam.
        known: who the subject is.
        others: digest of a PatientID -> the trial's other subjects who have it.
    """
    facts, conflict, name = one.facts, ReasonCode.IDENTITY_CONFLICT, subject.subject_id
    found = []
    if one.claim_code:
        found.append(Doubt("claim", ReasonCode(one.claim_code), one.claim_detail))
    digest = facts.patient_digest
    is_listed = digest is not None and digest == subject.listed.patient_digest  # the subjects' table says whose it is
    same = sorted(others.get(digest, ())) if digest is not None and not is_listed else []
    if same:
        text = f"its PatientID is also that of subject {' and '.join(same)}; it is said to be of subject {name}"
        found.append(Doubt("patient_id", conflict, text))
    elif digest is not None and known.patient_digest is not None and digest != known.patient_digest:
        found.append(Doubt("patient_id", conflict, f"its PatientID is not the one on record for {name}"))
    if None not in (facts.birth_year, known.birth_year) and facts.birth_year != known.birth_year:
        found.append(Doubt("birth_year", conflict, f"its year of birth is not the one on record for {name}"))
    if facts.sex in ("M", "F") and known.sex in ("M", "F") and facts.sex != known.sex:
        found.append(Doubt("sex", conflict, f"its sex is not the one on record for {name}"))
    if facts.site_id and one.claimed_by == "attributes" and facts.site_id != subject.site_id:
        text = f"its headers name the site {facts.site_id}; {name} is of site {subject.site_id}"
        found.append(Doubt("site", conflict, text))
    return [doubt for doubt in found if doubt.kind not in one.words.accepted]


@dataclass(frozen=True, slots=True)
class Standing:
    """How far an exam is. ``result``: what counts of it, where something does."""

    state: VisitState
    code: str = ""
    detail: str = ""
    result: Result | None = None


def standing_of(trial: Trial, one: Candidate) -> Standing:
    """How far an exam is measured, before it is looked at whether its result fits the subject."""
    if one.words.not_evaluable:
        return Standing(VisitState.NOT_EVALUABLE, "", f"a person said so: {one.words.not_evaluable}")
    if one.state in _HELD_STATES:
        code, detail = _code_in(one.detail, _HELD_STATES[one.state])
        return Standing(VisitState.HELD, code, detail)
    result, mismatch = _counting(trial, one.results)
    if result is None:
        if mismatch:
            return Standing(VisitState.HELD, str(ReasonCode.PROTOCOL_DEVIATION), mismatch)
        if one.state is ExamState.REFUSED:
            return _refused(*_code_in(one.detail, ReasonCode.REVIEW_REQUIRED))
        return Standing(VisitState.AWAITED)
    if result.verdict == _REFUSED:
        code, detail = result.reasons[0] if result.reasons else _code_in(one.detail, ReasonCode.REVIEW_REQUIRED)
        return _refused(code, detail)
    return Standing(VisitState.MEASURED, result=result)


_HELD_STATES = {
    ExamState.HELD: ReasonCode.REVIEW_REQUIRED,
    ExamState.INCOMPLETE: ReasonCode.SERIES_INCOMPLETE,
    ExamState.FAILED: ReasonCode.INTERNAL,
}


def _refused(code: str, detail: str) -> Standing:
    """A refused exam is a missing value with a reason; levels that could not be named wait for a person's word."""
    if code == ReasonCode.LEVELS_AMBIGUOUS:
        text = f"{detail}; a person must name the lowest disc (discnode jobs retry JOB --lowest-disc LEVEL)"
        return Standing(VisitState.HELD, code, text)
    return Standing(VisitState.NOT_EVALUABLE, code, detail)


def _code_in(detail: str, default: ReasonCode) -> tuple[str, str]:
    """The reason code that an exam's detail begins with, and the words after it."""
    code, _, text = detail.partition(": ")
    return (code, text) if code in ReasonCode.__members__ else (str(default), detail or "see discnode jobs list")


def _counting(trial: Trial, results: Sequence[Result]) -> tuple[Result | None, str]:
    """The newest result, or the newest of the frozen versions; with what differs where there is none of these."""
    if not results or trial.freeze is None:
        return (results[0] if results else None), ""
    for one in results:
        if one.verdict == _REFUSED or not what_differs(trial.freeze, one.versions):
            return one, ""
    differs = "; ".join(what_differs(trial.freeze, results[0].versions))
    return None, f"measured with other versions than the frozen ones: {differs}"


def result_doubts(
    trial: Trial, subject: Subject, one: Candidate, result: Result, baseline: Result | None
) -> list[Doubt]:
    """Whether a result may count for the subject. ``baseline``: its result that counts; None: none, or it is this."""
    found = []
    if trial.deviates_since is not None and result.finished_at >= trial.deviates_since:
        found.append(Doubt("", ReasonCode.PROTOCOL_DEVIATION, trial.deviation))
    if trial.plan.protocol not in (result.protocol, *result.protocol.split(" + ")):
        text = f"measured by the protocol card {result.protocol}, the plan asks for {trial.plan.protocol}"
        found.append(Doubt("protocol", ReasonCode.PROTOCOL_DEVIATION, text))
    found += _level_doubts(subject, result, baseline)
    found += _shape_doubts(result, baseline)
    return [doubt for doubt in found if not doubt.kind or doubt.kind not in one.words.accepted]


def _level_doubts(subject: Subject, result: Result, baseline: Result | None) -> list[Doubt]:
    ambiguous = ReasonCode.LEVELS_AMBIGUOUS
    levels = tuple(result.discs)
    if not subject.lowest_disc:
        if ambiguous in result.codes:
            told = next(detail for code, detail in result.reasons if code == ambiguous)
            command = f"discnode trial subjects confirm-levels {subject.subject_id}"
            return [Doubt("", ambiguous, f"{told}; nobody has confirmed the levels yet ({command})")]
        return []
    lock = f"the levels confirmed for {subject.subject_id}"
    if levels and levels[0] not in _may_begin(subject):
        again = f"discnode jobs retry {result.job_id} --lowest-disc {subject.lowest_disc}"
        text = f"its lowest disc is named {levels[0]}; {lock} begin with {subject.lowest_disc} (to rename: {again})"
        return [Doubt("", ambiguous, text)]
    expected = [level for level in subject.levels if level in levels or level not in subject.without_value]
    if expected and len(levels) != len(expected):
        text = f"{len(levels)} discs were found ({', '.join(levels)}); {lock} are {len(expected)}"
        return [Doubt("levels", ambiguous, text)]
    if baseline is not None and (shift := shifted_levels(baseline.discs, result.discs)):
        where = "upwards" if shift > 0 else "downwards"
        text = f"its discs look like those of the baseline named one level {where}: the names may be shifted"
        return [Doubt("levels", ambiguous, text)]
    return []


def _may_begin(subject: Subject) -> set[str]:
    """The discs that may be the lowest one found: the confirmed one, or the next where that has no value any more."""
    allowed = {subject.lowest_disc}
    for level in subject.levels:
        allowed.add(level)
        if level not in subject.without_value:
            break
    return allowed


def _shape_doubts(result: Result, baseline: Result | None) -> list[Doubt]:
    """Another person's spine under the right name; only ever a question."""
    distance = None if baseline is None else shape_distance(baseline.discs, result.discs)
    if distance is None or distance <= MOST_DISTANCE:
        return []
    text = (
        f"its discs differ in shape from the subject's baseline (distance {distance:.1f}, usual up to"
        f" {MOST_DISTANCE:.1f}): it may be another person's exam; please look at both"
    )
    return [Doubt("shape", ReasonCode.IDENTITY_CONFLICT, text)]


def told(doubts: Sequence[Doubt]) -> tuple[str, str]:
    """Code and words for the record: those of the first doubt, with the words of the others."""
    return (str(doubts[0].code), "; ".join(one.detail for one in doubts)) if doubts else ("", "")
