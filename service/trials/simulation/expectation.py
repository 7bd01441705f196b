"""What a node must say of each visit of a simulated trial, once the people concerned have done their part."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from processing.refusal import ReasonCode
from processing.results import Quantity, Region
from processing.visits import Cell, ChangeVerdict
from service.states import VisitState
from service.trials.simulation.scenario import VISITS, Fault, Scan, Scenario
from service.trials.simulation.subjects import SimulatedSubject
from service.trials.simulation.truth import TrueTimes

#: The cells that the simulated trial declares, at the treated level.
PRIMARY = ((Quantity.T2, Region.NUCLEUS),)

#: SD, on the log scale, of a measured change around the true one: place of the slices, noise, outline, registration.
CHANGE_SD_LOG = 0.035
_SURE_SD = 2.5  # so many SD from the limit, a verdict is certain enough to be asked for

_CHANGED = {True: ChangeVerdict.INCREASE, False: ChangeVerdict.DECREASE}
_NO_NUMBER = (ChangeVerdict.MISSING, ChangeVerdict.NOT_EVALUABLE)


@dataclass(frozen=True, slots=True)
class Limits:
    """Log of the ratio from which a change is beyond measurement error: on one scanner, and on two."""

    same_scanner: float
    other_scanner: float


@dataclass(frozen=True, slots=True)
class Expected:
    """One visit of one subject, and one of the trial's cells in it.

    ``state``: of the visit at the end, "" where no scan came; ``code``: its reason. ``person``: what somebody must do
    before that, and ``first_state`` and ``first_code`` what it is until then. ``deviation``: a difference from the
    baseline that must be told. ``verdicts``: those that are right; several where the true change lies near the limit.
    ``limit_log``: on the log scale. Times in ms.
    """

    subject_id: str
    visit: str
    fault: Fault
    state: str
    code: str
    first_state: str
    first_code: str
    person: str
    deviation: str
    cell: Cell | None = None
    verdicts: tuple[ChangeVerdict, ...] = ()
    limit_log: float | None = None
    true_baseline_ms: float | None = None
    true_ms: float | None = None

    @property
    def true_log_change(self) -> float | None:
        """Log of the true ratio to the baseline; None where one of both is missing."""
        if not self.true_baseline_ms or not self.true_ms:
            return None
        return math.log(self.true_ms / self.true_baseline_ms)


@dataclass(frozen=True, slots=True)
class _End:
    """How a fault ends.

    ``first_code``: of the hold until a person acts. ``verdicts``: None where the true change decides.
    """

    state: str = str(VisitState.MEASURED)
    code: str = ""
    first_code: str = ""
    person: str = ""
    deviation: str = ""
    verdicts: tuple[ChangeVerdict, ...] | None = None


def _held(code: ReasonCode) -> _End:
    return _End(str(VisitState.HELD), code.value, verdicts=_NO_NUMBER)


_ENDS: Mapping[Fault, _End] = {
    Fault.NONE: _End(),
    Fault.FOLLOW_UP_FIRST: _End(),
    Fault.AGAIN: _End(),
    Fault.MISSING: _End(state="", verdicts=(ChangeVerdict.MISSING,)),
    Fault.PARTIAL: _held(ReasonCode.SERIES_INCOMPLETE),
    Fault.UNKNOWN_TSL: _End(
        str(VisitState.NOT_EVALUABLE), ReasonCode.ECHO_UNRESOLVED.value, verdicts=(ChangeVerdict.NOT_EVALUABLE,)
    ),
    Fault.OTHER_TSL: _End(
        first_code=ReasonCode.PROTOCOL_DEVIATION.value,
        person="accept",
        deviation="t1rho_times_ms",
        verdicts=(ChangeVerdict.NOT_COMPARABLE,),
    ),
    Fault.CLOCK: _End(deviation="acquired_at"),
    Fault.WRONG_SPINE: _held(ReasonCode.IDENTITY_CONFLICT),
    Fault.WRONG_ID: _held(ReasonCode.IDENTITY_CONFLICT),
    Fault.TRANSITIONAL: _End(first_code=ReasonCode.LEVELS_AMBIGUOUS.value, person="name L4L5"),
    Fault.OUTSIDE: _held(ReasonCode.REVIEW_REQUIRED),
    Fault.SCANNER: _End(deviation="device_serial"),
    Fault.OPERATED: _End(person="not evaluable", verdicts=(ChangeVerdict.NOT_EVALUABLE,)),
    Fault.SHARED_ID: _End(str(VisitState.SET_ASIDE), first_code=ReasonCode.IDENTITY_CONFLICT.value, person="set aside"),
    Fault.UNKNOWN_SUBJECT: _held(ReasonCode.REVIEW_REQUIRED),
}


def expectations(scenario: Scenario, truth: Mapping[str, TrueTimes], limits: Limits) -> Iterator[Expected]:
    """One for each visit and primary cell; one without a cell for a baseline and for a stranger.

    Args:
        scenario: what happens.
        truth: of each scan, by its name.
        limits: those of the plan.
    """
    by_visit = {(scan.subject.subject_id, scan.visit): scan for scan in scenario.scans}
    for subject in scenario.subjects:
        baseline = by_visit[subject.subject_id, VISITS[0][0]]
        yield _expected(subject, baseline.visit, baseline.fault)
        for name, *_ in VISITS[1:]:
            yield from _of_visit(subject, name, by_visit.get((subject.subject_id, name)), baseline, truth, limits)
    for stranger in scenario.strangers:
        scan = by_visit[stranger.subject_id, VISITS[0][0]]
        yield _expected(stranger, scan.visit, scan.fault)


def _of_visit(
    subject: SimulatedSubject,
    visit: str,
    scan: Scan | None,
    baseline: Scan,
    truth: Mapping[str, TrueTimes],
    limits: Limits,
) -> Iterator[Expected]:
    fault = Fault.MISSING if scan is None else scan.fault
    limit = limits.other_scanner if fault is Fault.SCANNER else limits.same_scanner
    for quantity, region in PRIMARY:
        cell = Cell(subject.treated, region, quantity)
        before = truth[baseline.name].of_cell.get(cell)
        now = None if scan is None else truth[scan.name].of_cell.get(cell)
        one = replace(
            _expected(subject, visit, fault), cell=cell, limit_log=limit, true_baseline_ms=before, true_ms=now
        )
        change = one.true_log_change
        verdicts = _ENDS[fault].verdicts
        if verdicts is None:
            assert change is not None
            verdicts = _right(change, limit)
        yield replace(one, verdicts=verdicts)


def _expected(subject: SimulatedSubject, visit: str, fault: Fault) -> Expected:
    """Without a cell."""
    end = _ENDS[fault]
    return Expected(
        subject_id=subject.subject_id,
        visit=visit,
        fault=fault,
        state=end.state,
        code=end.code,
        first_state=str(VisitState.HELD) if end.first_code else end.state,
        first_code=end.first_code or end.code,
        person=end.person,
        deviation=end.deviation,
    )


def _right(change: float, limit: float) -> tuple[ChangeVerdict, ...]:
    """The verdicts that are right of a true change, both on the log scale."""
    doubt = _SURE_SD * CHANGE_SD_LOG
    changed = _CHANGED[change > 0]
    if abs(change) > limit + doubt:
        return (changed,)
    if abs(change) < limit - doubt:
        return (ChangeVerdict.WITHIN,)
    return (ChangeVerdict.WITHIN, changed)
