"""What happens in a simulated trial: every scan in the order of its arrival, and the fault that was planted in it.

The first six subjects hold every fault once, whatever the number of subjects; later ones lack a visit now and then, and
the last of them come back to another scanner.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from processing.phantom import VisitChange
from service.trials.simulation.subjects import SimulatedSubject, draw_subject, generator

#: Name, planned day, days before and after in which the scan counts.
VISITS = (("BL", 0, 0, 0), ("M3", 91, 14, 14), ("M6", 182, 21, 21), ("M12", 365, 30, 30))
FEWEST_SUBJECTS = 6

#: TSL in ms, after 0: of the trial; of no card that the node has; of a card of the node that is not the trial's.
USUAL_TSL_MS = (10.0, 40.0, 80.0)
UNKNOWN_TSL_MS = (10.0, 30.0, 60.0)
SHORT_TSL_MS = (15.0, 30.0, 60.0)

_DIURNAL_MS_PER_H = (-1.3, -1.3)  # nucleus, T1rho and T2
_ANNULUS_MS_PER_H = (0.5, 0.5)
_OTHER_SCANNER = 1.04  # its times are so many times longer
_MISSES_ONE = 7  # of the later subjects, every so manyth lacks M6
_MORE_SCANNER_CHANGES = 4  # of the last subjects, at M12


class Fault(StrEnum):
    """What is not as it should be about a scan, in words."""

    NONE = ""
    FOLLOW_UP_FIRST = "arrives before the baseline"
    MISSING = "no scan"
    AGAIN = "sent twice"
    PARTIAL = "images are missing"
    UNKNOWN_TSL = "spin-lock times that no card knows"
    OTHER_TSL = "spin-lock times not as at the baseline"
    CLOCK = "more than two hours later in the day"
    WRONG_SPINE = "another person's spine under the right IDs"
    WRONG_ID = "the right spine under another PatientID"
    TRANSITIONAL = "L5 is fused with the sacrum"
    OUTSIDE = "outside every window"
    SCANNER = "another scanner"
    OPERATED = "the treated disc was operated on"
    SHARED_ID = "a second subject with the PatientID of another"
    UNKNOWN_SUBJECT = "a subject that the trial cannot have"


_PLANTED: Mapping[tuple[int, str], Fault] = {
    (1, "M3"): Fault.FOLLOW_UP_FIRST,
    (1, "M6"): Fault.MISSING,
    (1, "M12"): Fault.AGAIN,
    (2, "M3"): Fault.PARTIAL,
    (2, "M6"): Fault.UNKNOWN_TSL,
    (2, "M12"): Fault.OTHER_TSL,
    (3, "M3"): Fault.CLOCK,
    (3, "M6"): Fault.WRONG_SPINE,
    (3, "M12"): Fault.WRONG_ID,
    **{(4, name): Fault.TRANSITIONAL for name, *_ in VISITS},
    (5, "M6"): Fault.OUTSIDE,
    (5, "M12"): Fault.SCANNER,
    (6, "M12"): Fault.OPERATED,
}
_TRANSITIONAL = 4
_SHARED_FROM = 5  # whose PatientID a second subject has
_OF_STRANGERS = datetime(2024, 3, 11, 9, 20)


@dataclass(frozen=True, slots=True)
class Scan:
    """One exam as it is sent. ``subject``: whose IDs it has; ``spine``: who lay in the scanner.

    ``phantom_visit``: number under which position and noise are drawn; no two scans of a spine share it. ``at``: clock
    of the scanner. ``lacking``: images left out at the end. ``arrives``: place in the order of arrival.
    """

    subject: SimulatedSubject
    spine: SimulatedSubject
    visit: str
    fault: Fault
    at: datetime
    change: VisitChange
    phantom_visit: int
    site_id: str
    patient_id: str
    serial_number: str
    software_versions: tuple[str, ...]
    spin_lock_ms: tuple[float, ...] = USUAL_TSL_MS
    lacking: int = 0
    times_sent: int = 1
    arrives: int = 0

    @property
    def name(self) -> str:
        """A name for its folder."""
        return f"{self.arrives:03d}-{self.subject.subject_id}-{self.visit}"


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole trial. ``scans`` in the order of arrival; ``missing``: subject and visit without one."""

    seed: int
    subjects: tuple[SimulatedSubject, ...]
    strangers: tuple[SimulatedSubject, ...]
    scans: tuple[Scan, ...]
    missing: tuple[tuple[SimulatedSubject, str], ...]


def draw_scenario(n_subjects: int, seed: int, effect: float) -> Scenario:
    """The scenario of a seed.

    Args:
        n_subjects: at least six.
        seed: everything follows from it.
        effect: log of the ratio by which a treatment that works changes the nucleus region.

    Raises:
        ValueError: too few subjects to hold every fault.
    """
    if n_subjects < FEWEST_SUBJECTS:
        raise ValueError(f"{n_subjects} subjects; at least {FEWEST_SUBJECTS} are needed to hold every fault")
    numbers = range(1, n_subjects + 1)
    subjects = tuple(draw_subject(one, seed, effect, is_transitional=one == _TRANSITIONAL) for one in numbers)
    planned = {(number, name): _fault_of(number, name, n_subjects) for number, name in _places(n_subjects)}
    scans = [
        _scan(subjects, number, name, fault, seed)
        for (number, name), fault in planned.items()
        if fault is not Fault.MISSING
    ]
    strangers = _strangers(subjects, seed)
    scans += [_first_scan(stranger, fault, seed) for stranger, fault in strangers]
    return Scenario(
        seed=seed,
        subjects=subjects,
        strangers=tuple(stranger for stranger, _ in strangers),
        scans=_in_order_of_arrival(scans),
        missing=tuple((subjects[number - 1], name) for (number, name), one in planned.items() if one is Fault.MISSING),
    )


def _places(n_subjects: int) -> Iterator[tuple[int, str]]:
    return ((number, name) for number in range(1, n_subjects + 1) for name, *_ in VISITS)


def _fault_of(number: int, visit: str, n_subjects: int) -> Fault:
    if number <= FEWEST_SUBJECTS:
        return _PLANTED.get((number, visit), Fault.NONE)
    if visit == "M6" and number % _MISSES_ONE == 0:
        return Fault.MISSING
    if visit == "M12" and number > max(FEWEST_SUBJECTS, n_subjects - _MORE_SCANNER_CHANGES):
        return Fault.SCANNER
    return Fault.NONE


def _scan(subjects: Sequence[SimulatedSubject], number: int, visit: str, fault: Fault, seed: int) -> Scan:
    subject = subjects[number - 1]
    place = [name for name, *_ in VISITS].index(visit)
    at = _clock(subject, visit, fault, seed)
    is_other_scanner = fault is Fault.SCANNER
    scan = Scan(
        subject=subject,
        spine=subjects[number + 1] if fault is Fault.WRONG_SPINE else subject,
        visit=visit,
        fault=fault,
        at=at,
        change=_change(subject, visit, at, seed),
        phantom_visit=place + 1,
        site_id=subject.site_id,
        patient_id=f"{subject.patient_id}X" if fault is Fault.WRONG_ID else subject.patient_id,
        serial_number=f"SIM-{subject.site_id}-{2 if is_other_scanner else 1}",
        software_versions=("29", "LX", "MR29.2") if is_other_scanner else ("27", "LX", "MR27.1"),
        lacking=5 if fault is Fault.PARTIAL else 0,
        times_sent=2 if fault is Fault.AGAIN else 1,
    )
    if fault is Fault.WRONG_SPINE:  # the same day, another person
        return replace(scan, change=_change(scan.spine, visit, at, seed), phantom_visit=10 + place)
    if fault is Fault.UNKNOWN_TSL:
        return replace(scan, spin_lock_ms=UNKNOWN_TSL_MS)
    if fault is Fault.OTHER_TSL:
        return replace(scan, spin_lock_ms=SHORT_TSL_MS)
    if is_other_scanner:
        return replace(scan, change=replace(scan.change, time_factor=_OTHER_SCANNER, gain=1.6))
    if fault is Fault.OPERATED:
        return replace(scan, change=replace(scan.change, fused_level=int(subject.treated)))
    return scan


def _clock(subject: SimulatedSubject, visit: str, fault: Fault, seed: int) -> datetime:
    """When the scan was, on the scanner's clock: within the window and about the hour of the baseline."""
    day, before, after = next((day, before, after) for name, day, before, after in VISITS if name == visit)
    if day == 0:
        return subject.baseline_at
    chance = generator("trial visit", seed, subject.subject_id, visit)
    offset = int(chance.integers(-before // 2, after // 2 + 1))
    if fault is Fault.OUTSIDE:
        offset = after + 25
    minutes = int(chance.integers(-75, 75)) + (7 * 60 if fault is Fault.CLOCK else 0)
    return subject.baseline_at + timedelta(days=day + offset, minutes=minutes)


def _change(subject: SimulatedSubject, visit: str, at: datetime, seed: int) -> VisitChange:
    """Treatment, from the second visit on, and the time of day."""
    treatment = VisitChange() if visit == VISITS[0][0] else subject.treatment(seed)
    hours = (at - at.replace(hour=9, minute=0)).total_seconds() / 3600
    return replace(
        treatment,
        diurnal_ms=(hours * _DIURNAL_MS_PER_H[0], hours * _DIURNAL_MS_PER_H[1]),
        diurnal_annulus_ms=(hours * _ANNULUS_MS_PER_H[0], hours * _ANNULUS_MS_PER_H[1]),
    )


def _strangers(subjects: Sequence[SimulatedSubject], seed: int) -> list[tuple[SimulatedSubject, Fault]]:
    """People beside the subjects: one with another's PatientID, one whom the trial cannot have."""
    second, unknown = (replace(draw_subject(number, seed, 0.0), baseline_at=_OF_STRANGERS) for number in (7001, 7002))
    second = replace(second, subject_id="02-099", site_id="02", patient_id=subjects[_SHARED_FROM - 1].patient_id)
    return [(second, Fault.SHARED_ID), (replace(unknown, subject_id="77-001", site_id="77"), Fault.UNKNOWN_SUBJECT)]


def _first_scan(subject: SimulatedSubject, fault: Fault, seed: int) -> Scan:
    at = subject.baseline_at
    return Scan(
        subject=subject,
        spine=subject,
        visit=VISITS[0][0],
        fault=fault,
        at=at,
        change=_change(subject, VISITS[0][0], at, seed),
        phantom_visit=1,
        site_id=subject.site_id,
        patient_id=subject.patient_id,
        serial_number=f"SIM-{subject.site_id}-1",
        software_versions=("27", "LX", "MR27.1"),
    )


def _in_order_of_arrival(scans: Sequence[Scan]) -> tuple[Scan, ...]:
    """By date; a baseline that is late comes right after the follow-up that it should have preceded."""
    late = {scan.subject.subject_id: scan for scan in scans if scan.fault is Fault.FOLLOW_UP_FIRST}

    def place(scan: Scan) -> tuple[datetime, int]:
        first = late.get(scan.subject.subject_id)
        if first is not None and scan.visit == VISITS[0][0]:
            return first.at, 1
        return scan.at, 0

    return tuple(replace(scan, arrives=number) for number, scan in enumerate(sorted(scans, key=place), start=1))
