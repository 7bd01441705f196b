"""What each exam of a subject is: which visit, whether it counts, and if not, why.

A function of all that is known of the subject and of nothing else: in whatever order exams, results and people's words
came, the outcome is the same, and deciding twice changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from config.settings import Repeats
from config.trial_plans import TrialPlan
from processing.refusal import ReasonCode
from processing.visits import Difference
from service.states import VisitState
from service.trials.candidates import Candidate, Identity, Result, Subject
from service.trials.doubts import Doubt, identity_doubts, result_doubts, standing_of, told
from service.trials.equality import differences
from service.trials.registry import Trial
from service.trials.windows import UNSCHEDULED, clock_fault, outside, place, scanned_at, zone_of

_COUNTING = (VisitState.AWAITED, VisitState.MEASURED)
_REVIEW = ReasonCode.REVIEW_REQUIRED


@dataclass(frozen=True, slots=True)
class VisitDecision:
    """One exam of a subject. ``name``: of a visit of the plan, or "unscheduled"; ``day``: from day zero.

    ``doubts``: kinds of those for which it is held.
    """

    exam_id: int
    name: str
    state: VisitState
    assigned_by: str
    code: str = ""
    detail: str = ""
    result: Result | None = None
    scanned_at: datetime | None = None
    day: int | None = None
    differences: tuple[Difference, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What somebody should look at before the result leaves the node."""
        reasons = () if self.result is None else tuple(f"{code}: {detail}" for code, detail in self.result.reasons)
        return (*reasons, *(one.text for one in self.differences))


@dataclass(frozen=True, slots=True)
class SubjectDecision:
    """All exams of a subject, in the order of their numbers."""

    day_zero: date | None
    visits: tuple[VisitDecision, ...]


def known_identity(plan: TrialPlan, subject: Subject, candidates: Sequence[Candidate]) -> Identity:
    """What the subject's exams are held against: the subjects' table, and where that is silent the baseline.

    Without a scan that says to be the baseline, the earliest one.
    """
    sites = [one.id for one in plan.sites]
    anchored = [one for one in candidates if one.is_anchored]

    def order(one: Candidate) -> tuple[bool, datetime, str]:
        moment = scanned_at(one.facts, zone_of(plan, one.facts.site_id or subject.site_id))
        return _told_visit(plan, one) != plan.baseline.name, moment or datetime.max, one.study_uid

    first = min(anchored, key=order, default=None)
    listed, scan = subject.listed, Identity() if first is None else _identity_of(first)
    site_id = listed.site_id or (scan.site_id if scan.site_id in sites else subject.site_id)
    return Identity(
        listed.patient_digest or scan.patient_digest,
        scan.birth_year if listed.birth_year is None else listed.birth_year,
        listed.sex or scan.sex,
        site_id,
    )


def _identity_of(one: Candidate) -> Identity:
    return Identity(one.facts.patient_digest, one.facts.birth_year, one.facts.sex, one.facts.site_id)


def _told_visit(plan: TrialPlan, one: Candidate) -> str:
    """The visit that a person, a mapping or the headers name, as the plan writes it; "" where none does."""
    name = one.words.visit or one.visit
    return next((visit.name for visit in plan.visits if visit.name.casefold() == name.casefold()), name)


def decide(
    trial: Trial, subject: Subject, candidates: Sequence[Candidate], others: Mapping[str, Sequence[str]], now: datetime
) -> SubjectDecision:
    """What each exam of a subject is.

    Args:
        trial: the trial as it is followed now.
        subject: the subject.
        candidates: the exams that were taken for it.
        others: digest of a PatientID -> the trial's other subjects who have it.
        now: aware; a scan cannot be later.
    """
    plan = trial.plan
    desk = _Desk(trial, subject, known_identity(plan, subject, candidates), others, now)
    drafts = [desk.draft(one) for one in candidates]
    day_zero = desk.day_zero(drafts)
    drafts = [desk.named(draft, day_zero) for draft in drafts]
    baselines = _with_repeats(plan, [desk.measured(one, None) for one in drafts if one.name == plan.baseline.name])
    found = [one.decision.result for one in baselines if one.decision.state is VisitState.MEASURED]
    baseline = found[0] if len(found) == 1 else None
    others_of_it = [desk.measured(one, baseline) for one in drafts if one.name != plan.baseline.name]
    settled = [*baselines, *_with_repeats(plan, others_of_it)]
    return SubjectDecision(day_zero, tuple(sorted((one.decision for one in settled), key=lambda one: one.exam_id)))


@dataclass(frozen=True, slots=True)
class _Draft:
    """A decision in the making. Once it is held or set aside, nothing more is asked of it."""

    candidate: Candidate
    decision: VisitDecision
    is_open: bool = True

    @property
    def name(self) -> str:
        return self.decision.name

    def held(self, *doubts: Doubt) -> "_Draft":
        code, detail = told(doubts)
        kinds = tuple(one.kind for one in doubts)
        decision = replace(self.decision, state=VisitState.HELD, code=code, detail=detail, doubts=kinds)
        return replace(self, decision=decision, is_open=False)


@dataclass(frozen=True, slots=True)
class _Desk:
    """The subject, and what its exams are held against."""

    trial: Trial
    subject: Subject
    known: Identity
    others: Mapping[str, Sequence[str]]
    now: datetime

    def draft(self, one: Candidate) -> _Draft:
        """Whose it is and when, before it is asked which visit it is."""
        plan = self.trial.plan
        zone = zone_of(plan, self.subject.site_id)
        moment = scanned_at(one.facts, zone)
        name = _told_visit(plan, one)
        is_planned = name in [visit.name for visit in plan.visits]
        by = "person" if one.words.visit else one.claimed_by if name else "date"
        start = VisitDecision(
            exam_id=one.exam_id,
            name=name if is_planned else UNSCHEDULED,
            state=VisitState.AWAITED,
            assigned_by=by,
            scanned_at=moment,
        )
        if one.words.set_aside:
            aside = replace(start, state=VisitState.SET_ASIDE, detail=f"a person said so: {one.words.reason}")
            return _Draft(one, aside, is_open=False)
        doubts = identity_doubts(self.subject, one, self.known, self.others)
        fault = clock_fault(one.facts, zone, self.now)
        if fault and "clock" not in one.words.accepted:
            doubts.append(Doubt("clock", _REVIEW, fault))
        withdrawn_on = None if self.subject.is_active else self.subject.withdrawn_on
        if withdrawn_on is not None and (moment is None or moment.date() > withdrawn_on):
            text = f"subject {self.subject.subject_id} was withdrawn on {withdrawn_on}"
            doubts.append(Doubt("", _REVIEW, text))
        draft = _Draft(one, start)
        return draft.held(*doubts) if doubts else draft

    def day_zero(self, drafts: Sequence[_Draft]) -> date | None:
        """The day that the visits are counted from: given, or the date of the baseline's scan; None: not yet known."""
        plan = self.trial.plan
        if plan.day_zero == "given":
            return self.subject.day_zero
        dated = [
            (one.decision.scanned_at, _told_visit(plan, one.candidate))
            for one in drafts
            if one.is_open and one.decision.scanned_at is not None and one.candidate.words.visit != UNSCHEDULED
        ]
        named = [moment for moment, name in dated if name == plan.baseline.name]
        if named:
            return min(named).date()
        if not dated or min(dated)[1]:
            return None  # the first scan says to be another visit: the baseline is still to come
        return min(dated)[0].date()

    def named(self, draft: _Draft, day_zero: date | None) -> _Draft:
        """Which visit it is."""
        moment = draft.decision.scanned_at
        if moment is not None and day_zero is not None:
            draft = replace(draft, decision=replace(draft.decision, day=(moment.date() - day_zero).days))
        if not draft.is_open or draft.candidate.words.visit:
            return draft
        plan, day = self.trial.plan, draft.decision.day
        name = _told_visit(plan, draft.candidate)
        visit = next((one for one in plan.visits if one.name == name), None)
        if name and visit is None:
            names = ", ".join(one.name for one in plan.visits)
            return draft.held(Doubt("", _REVIEW, f"it names the visit {name!r}, which the plan has not: {names}"))
        if day is None:
            if visit is not None and moment is not None:
                return draft  # its window is looked at when day zero is known
            return draft.held(Doubt("", _REVIEW, "which visit it is cannot be told: day zero is not known"))
        if visit is not None:
            far = outside(visit, day)
            inside = place(plan, day).visit if far else None
            also = f", in that of {inside.name}" if inside is not None else ""
            return draft.held(Doubt("", _REVIEW, f"{far}{also}")) if far else draft
        placed = place(plan, day)
        if placed.visit is None:
            return draft.held(Doubt("", _REVIEW, placed.text))
        return replace(draft, decision=replace(draft.decision, name=placed.visit.name))

    def measured(self, draft: _Draft, baseline: Result | None) -> _Draft:
        """How far it is measured, and whether its result fits the subject."""
        if not draft.is_open:
            return draft
        one = draft.candidate
        standing = standing_of(self.trial, one)
        decision = replace(
            draft.decision, state=standing.state, code=standing.code, detail=standing.detail, result=standing.result
        )
        draft = replace(draft, decision=decision, is_open=standing.state in _COUNTING)
        if standing.result is None:
            return draft
        doubts = result_doubts(self.trial, self.subject, one, standing.result, baseline)
        if doubts:
            return draft.held(*doubts)
        rules = self.trial.plan.acceptance
        found = () if baseline is None else differences(baseline.acquisition, standing.result.acquisition, rules)
        return replace(draft, decision=replace(draft.decision, differences=found))


def _with_repeats(plan: TrialPlan, drafts: Sequence[_Draft]) -> list[_Draft]:
    """Of several scans of one visit, one counts, as the plan or a person says; else all of them are held."""
    outcome = []
    for draft in drafts:
        same = [one for one in drafts if one.is_open and one.name == draft.name]
        if not draft.is_open or draft.name == UNSCHEDULED or len(same) < 2:
            outcome.append(draft)
        else:
            outcome.append(_repeat(plan, draft, same))
    return outcome


def _repeat(plan: TrialPlan, draft: _Draft, same: Sequence[_Draft]) -> _Draft:
    said = [one for one in same if one.candidate.words.visit]
    if len(said) == 1:
        chosen, why = said[0], "a person has chosen"
    elif plan.repeats is Repeats.HOLD:
        numbers = ", ".join(str(one.decision.exam_id) for one in sorted(same, key=_order))
        text = f"{len(same)} scans of {draft.name}: exams {numbers}; a person must say which counts"
        return draft.held(Doubt("", _REVIEW, text))
    else:
        chosen = (min if plan.repeats is Repeats.FIRST else max)(same, key=_order)
        why = f"the plan takes the {plan.repeats} scan"
    if chosen is draft:
        return draft
    text = f"a repeat: exam {chosen.decision.exam_id} counts for {draft.name} ({why})"
    aside = replace(draft.decision, state=VisitState.SET_ASIDE, code="", detail=text, differences=())
    return replace(draft, decision=aside, is_open=False)


def _order(draft: _Draft) -> tuple[datetime, str]:
    return draft.decision.scanned_at or datetime.max, draft.candidate.study_uid
