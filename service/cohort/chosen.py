"""Which scans of the table an analysis takes, where its columns are read, and who is left out for what reason."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from config.cohort_plans import CohortPlan, OverTime, OverVisits
from service.cohort.asked import Question
from service.cohort.table import CohortError, CohortTable, Scan

_FAULTS_TOLD = 5


@dataclass(frozen=True, slots=True)
class Chosen:
    """The scans of an analysis, one for each unit, and by their side where the columns of each unit are read.

    ``scans``: of a change the later ones, of slopes the first that are used. ``told``: where columns are read: of a
    change the baseline, of slopes a subject's first scan with a time, whether it has a map or not; else the scan.
    ``before``: the baselines of a change; ``courses``: all scans of each slope in the order of time; else empty.
    ``left_out``: what is not in it, with the reason.
    """

    scans: tuple[Scan, ...]
    told: tuple[Scan, ...]
    before: tuple[Scan, ...]
    courses: tuple[tuple[Scan, ...], ...]
    left_out: tuple[str, ...]

    def only(self, places: Sequence[int]) -> "Chosen":
        """Some of the units."""
        return replace(
            self,
            scans=tuple(self.scans[one] for one in places),
            told=tuple(self.told[one] for one in places),
            before=tuple(self.before[one] for one in places) if self.before else (),
            courses=tuple(self.courses[one] for one in places) if self.courses else (),
        )


def choose(plan: CohortPlan, table: CohortTable, question: Question, has_map: Callable[[Scan], bool]) -> Chosen:
    """The scans that are asked for and have maps.

    Raises:
        CohortError: a visit that no scan has, a subject twice, or fewer than three subjects with both scans.
    """
    asked = question.asked
    if isinstance(asked, OverVisits):
        return _with_courses(table, asked, question.column(asked.time), has_map)
    if isinstance(asked, OverTime):
        return _with_both(table, asked, has_map)
    scans = table.scans if plan.paper and not asked.visit else table.at(asked.visit)
    kept = tuple(one for one in scans if has_map(one))
    return Chosen(kept, kept, (), (), tuple(_lacks(one, "no map") for one in scans if not has_map(one)))


def check_alike(plan: CohortPlan, question: Question, chosen: Chosen) -> None:
    """Groups and sites are a subject's: other visits may leave them empty, but not differ.

    Raises:
        CohortError: they differ between visits that are used; names the lines.
    """
    columns = [one for one in (question.column_of_words, plan.site) if one is not None]
    if chosen.courses:
        used = [(first, *course) for first, course in zip(chosen.told, chosen.courses, strict=True)]
    else:
        used = [(first, later) for first, later in zip(chosen.told, chosen.scans, strict=True)]
    faults = []
    for scans in used:
        for column in columns:
            words: dict[str, int] = {}
            for one in sorted(scans, key=lambda scan: scan.line):
                if not one.is_empty(column):
                    words.setdefault(one.values[column].strip(), one.line)
            if len(words) > 1:
                what = ", ".join(f"{word!r} in line {line}" for word, line in words.items())
                faults.append(f"{column}: {scans[0].subject} has {what}; a subject has one")
    if faults:
        more = f"; and {len(faults) - _FAULTS_TOLD} more" if len(faults) > _FAULTS_TOLD else ""
        raise CohortError("; ".join(faults[:_FAULTS_TOLD]) + more)


def lines_of(scans: Iterable[Scan]) -> str:
    """Where scans stand in the table, in words."""
    lines = sorted({one.line for one in scans})
    return f"line{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines))}"


def _with_both(table: CohortTable, asked: OverTime, has_map: Callable[[Scan], bool]) -> Chosen:
    first = {one.subject: one for one in table.at(asked.baseline)}
    second = {one.subject: one for one in table.at(asked.later)}
    both, left_out = [], []
    for subject in dict.fromkeys((*first, *second)):
        scans = [mine[subject] for mine in (first, second) if subject in mine]
        without = [one for one in scans if not has_map(one)]
        if len(without) == 1:
            left_out.append(_lacks(without[0], "no map"))
        elif without:
            left_out.append(f"{lines_of(without)}: {subject}: no map")
        elif len(scans) == 1:
            left_out.append(f"{subject}: not both scans")
        else:
            both.append(subject)
    if len(both) < 3:
        raise CohortError(f"{len(both)} subjects have both {asked.baseline} and {asked.later}; at least 3 are needed")
    before = tuple(first[one] for one in both)
    return Chosen(tuple(second[one] for one in both), before, before, (), tuple(left_out))


def _with_courses(table: CohortTable, asked: OverVisits, time: str, has_map: Callable[[Scan], bool]) -> Chosen:
    for visit in asked.visits:
        table.at(visit)
    scans: dict[str, list[Scan]] = {}
    for one in table.scans:
        if not asked.visits or one.visit in asked.visits:
            scans.setdefault(one.subject, []).append(one)
    told: list[Scan] = []
    courses: list[tuple[Scan, ...]] = []
    left_out: list[str] = []
    for subject, mine in scans.items():
        timed = sorted((one for one in mine if not math.isnan(one.number(time))), key=lambda one: one.number(time))
        course = tuple(one for one in timed if has_map(one))
        lacking = {f"no {time}": [one for one in mine if one not in timed]}
        lacking["no map"] = [one for one in timed if one not in course]
        if course and course[0].number(time) < course[-1].number(time):
            told.append(timed[0])
            courses.append(course)
            left_out.extend(_lacks(one, reason) for reason, without in lacking.items() for one in without)
        else:
            why = "; ".join(f"{reason} in {lines_of(without)}" for reason, without in lacking.items() if without)
            left_out.append(f"{subject}: no two scans at different {time}{f' ({why})' if why else ''}")
    return Chosen(tuple(one[0] for one in courses), tuple(told), (), tuple(courses), tuple(left_out))


def _lacks(scan: Scan, reason: str) -> str:
    return f"line {scan.line}: {f'{scan.subject} {scan.visit}'.strip()}: {reason}"
