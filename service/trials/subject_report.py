"""The longitudinal report of a trial's subject: one page that tells it, then all changes, acquisition, quality."""

from collections.abc import Iterator, Sequence
from typing import Final

from processing.display import LEVEL_NAMES, QUANTITY_NAMES, REGION_NAMES
from processing.results import Quantity, Region
from service.reports import words
from service.reports.document import Block, Column, Document, Fact, Facts, Notice, Page, Picture, Row, Table, Text, Tone
from service.states import SubjectState
from service.trials import report_tables as tables
from service.trials.history import VisitRecord
from service.trials.report_contents import ReportContents, ReportEdition
from service.trials.report_pictures import (
    MOST_ON_FIRST_PAGE,
    courses_picture,
    differences_picture,
    measured_quantities,
    strip_picture,
)
from service.trials.report_words import state_text

TITLE: Final = "Lumbar discs over time"
_MOST_WARNINGS = 4  # lines of the notice on the first page
_CITATION = "Iriondo C, Pedoia V, Majumdar S. Magn Reson Med 2020;84:1376–1390, doi\N{NO-BREAK SPACE}10.1002/mrm.28210."


def subject_report(contents: ReportContents) -> Document:
    """The report of a subject, whatever has come of its visits."""
    pages = (
        Page(TITLE, tuple(_summary(contents))),
        Page("All changes", tuple(_changes(contents))),
        Page("Acquisition and quality", tuple(_trust(contents))),
        Page("Pictures", tuple(_pictures(contents))),
        Page("Method, signatures and versions", tuple(_records(contents))),
    )
    footer = f"{contents.history.plan.protocol_id}, {contents.history.subject_id}, version {contents.edition.version}"
    return Document(TITLE, words.USE, footer, tuple(page for page in pages if page.blocks))


def _summary(contents: ReportContents) -> Iterator[Block]:
    yield _about(contents)
    yield from _cautions(contents)
    primary = tables.primary_table(contents)
    if primary is not None:
        yield primary
    yield _reading(contents)
    yield tables.visit_table(contents)
    visits = contents.history.visits
    if len(visits) > MOST_ON_FIRST_PAGE:
        visits = (contents.history.baseline, *visits[1 - MOST_ON_FIRST_PAGE :])
    strip = strip_picture(contents, contents.shown_quantity, visits)
    courses = courses_picture(contents, (contents.shown_region,), (contents.shown_quantity,))
    yield from (one for one in (strip, courses) if one is not None)


def _about(contents: ReportContents) -> Facts:
    history, edition = contents.history, contents.edition
    plan = history.plan
    site = next((one for one in plan.sites if one.id == history.site_id), None)
    freeze = "frozen" if history.freeze else "not frozen"
    withdrawn = ", withdrawn" if history.state is SubjectState.WITHDRAWN else ""
    facts = (
        Fact("Trial", ", ".join(part for part in (plan.protocol_id, plan.name) if part)),
        Fact("Subject", f"{history.subject_id}{withdrawn}, site {history.site_id}{_named(site.name if site else '')}"),
        Fact("Measured", _measured_text(contents)),
        Fact("Report", _edition_text(contents)),
        Fact("Levels", _levels_text(contents)),
        Fact("Plan", f"SHA-256 {history.plan_sha256[:16]}…, {freeze}"),
        Fact("Blinding", _blinding_text(contents)),
        Fact("Software", f"discnode {edition.software}; versions of all that measured on the last page"),
    )
    return Facts("", facts)


def _measured_text(contents: ReportContents) -> str:
    visits = contents.history.visits
    came = [one.name for one in visits if one.is_measured and one.planned is not None]
    further = sum(one.is_measured and one.planned is None for one in visits)
    text = f"{len(came)} of {len(contents.history.plan.visits)} planned visits"
    text += f" ({', '.join(came)})" if came else ""
    return f"{text}, {further} unscheduled" if further else text


def _named(name: str) -> str:
    return f" ({name})" if name else ""


def _edition_text(contents: ReportContents) -> str:
    edition = contents.edition
    if edition.is_draft:
        return f"DRAFT of version {edition.version}, not on record"
    made = "" if contents.days_only else f" of {edition.made_at:%Y-%m-%d %H:%M} UTC"
    earlier = f", supersedes version {edition.earlier[-1].version}" if edition.earlier else ", the first"
    return f"version {edition.version}{made}{earlier}"


def _levels_text(contents: ReportContents) -> str:
    if not contents.history.levels_confirmed:
        return "NOT confirmed by a person"
    if contents.days_only:  # who and when are not for a de-identified report
        return "confirmed by a person"
    return f"confirmed: {words.in_words(contents.history.levels_confirmed)}"


def _blinding_text(contents: ReportContents) -> str:
    treated = contents.history.treated_level
    if treated is not None:
        return f"treated level {LEVEL_NAMES[treated]} shown; the node does not know the arm"
    if contents.is_blinded:
        return "treated level not shown, all levels shown alike; the node does not know the arm"
    return "treated level not known; the node does not know the arm"


def _cautions(contents: ReportContents) -> Iterator[Notice]:
    told = [words.in_words(one) for one in dict.fromkeys((*_moved(contents), *contents.history.warnings))]
    if not told:
        return
    lines = told if len(told) <= _MOST_WARNINGS else [*told[: _MOST_WARNINGS - 1], _more(told)]
    yield Notice(Tone.CAUTION, f"Read with {words.count(len(told), 'warning', 'warnings')}", tuple(lines))


def _moved(contents: ReportContents) -> list[str]:
    """What speaks against verdicts, in one line: that of what the page shows, and how many more there are."""
    told = contents.table.warnings
    if len(told) < 2:
        return list(told)
    part = f"{contents.shown_quantity} of the {REGION_NAMES[contents.shown_region]}"
    first = next((one for one in told if part in one), told[0])
    return [f"{first} The same is said of {words.count(len(told) - 1, 'other part', 'other parts')}."]


def _more(told: Sequence[str]) -> str:
    return f"And {len(told) - _MOST_WARNINGS + 1} more; all stand in report.json."


def _reading(contents: ReportContents) -> Notice:
    """What was declared in advance and is not shown, and how many cells lie beyond their limits by chance alone."""
    lines = []
    if contents.hidden_primary:
        declared = [one for one in contents.history.plan.primary if one.level == "treated"]
        names = words.listed(
            [f"{QUANTITY_NAMES[Quantity(one.quantity)]} of the {_region(one.region)}" for one in declared]
        )
        lines.append(
            f"Declared in advance: {names} at the treated level. Which level that is, this report does not show: all"
            " five stand alike, and nothing here is the primary analysis."
        )
    elif not contents.history.plan.primary:
        lines.append("No cell was declared in advance: everything here is exploratory.")
    lines += contents.table.notes
    return Notice(Tone.PLAIN, "How to read the changes", tuple(lines))


def _region(name: str) -> str:
    return REGION_NAMES[Region(name)]


def _changes(contents: ReportContents) -> Iterator[Block]:
    quantities = measured_quantities(contents)
    for quantity in quantities:
        yield from tables.change_tables(contents, quantity)
    regions = tuple(dict.fromkeys((contents.shown_region, Region.WHOLE_DISC)))
    courses = courses_picture(contents, regions, quantities)
    if courses is not None:
        yield courses
    for table in (tables.slope_table(contents), tables.control_table(contents)):
        if table is not None:
            yield table
    if contents.table.warnings:
        yield Text("What speaks against a verdict", tuple(words.in_words(one) for one in contents.table.warnings))


def _trust(contents: ReportContents) -> Iterator[Block]:
    yield from tables.acquisition_tables(contents)
    yield from tables.quality_tables(contents)
    deviations = [
        f"{visit.name}: {one.text}{'; no change is judged' if one.hard else '; wider limits' if one.widens else ''}."
        for visit in contents.history.visits
        for one in visit.differences
    ]
    yield Text("Deviations from the baseline", tuple(deviations) or ("None was found.",))
    doubts = [
        f"{visit.name}: {words.in_words(one['detail'])} ({one['code']})."
        for visit in contents.history.visits
        if visit.result is not None
        for one in visit.result.get("reasons", ())
    ]
    yield Text("Doubts about single exams", tuple(doubts) or ("None.",))
    yield Text("What is left out, and why", tuple(_left_out(contents)) or ("Nothing.",))


def _left_out(contents: ReportContents) -> Iterator[str]:
    history = contents.history
    for visit in history.visits:
        if not visit.is_measured:
            why = f": {words.in_words(visit.detail)}" if visit.detail else ""
            yield f"{visit.name}: {state_text(visit, is_over=contents.is_over(visit))}{why}."
    for level, (first, why) in sorted(history.non_evaluable.items(), reverse=True):
        yield f"{LEVEL_NAMES[level]} from {first} on: not evaluable, {why}. Never filled in."
    for visit in history.set_aside:
        yield f"A further scan for {visit.name}{_on(contents, visit)}: {words.in_words(visit.detail) or 'set aside'}."


def _on(contents: ReportContents, visit: VisitRecord) -> str:
    day = contents.day_text(visit.scan_date)
    return f" ({day})" if day else ""


def _pictures(contents: ReportContents) -> Iterator[Picture]:
    others = measured_quantities(contents)[1:]
    visits = contents.history.visits
    more = (contents.shown_quantity,) if len(visits) > MOST_ON_FIRST_PAGE else ()
    for quantity in (None, *more, *others):
        for shown in tables.beside(visits):
            picture = strip_picture(contents, quantity, shown)
            if picture is not None:
                yield picture
    for quantity in measured_quantities(contents):
        picture = differences_picture(contents, quantity)
        if picture is not None:
            yield picture


def _records(contents: ReportContents) -> Iterator[Block]:
    yield Text("Method", tuple(_method(contents)))
    for shown in tables.beside([one for one in contents.history.visits if one.result is not None]):
        yield _made_with(shown)
    if not contents.days_only:
        yield _editions(contents.edition)


def _method(contents: ReportContents) -> Iterator[str]:
    rule = contents.history.plan.change
    yield (
        "Each exam was measured by itself: networks outlined the discs on the first image, each disc was registered to"
        " the disc of its level in an atlas, and T1ρ and T2 were fitted in every voxel as mono-exponential decays. The"
        f" values are means over {_voxels(contents)}. Method: {_CITATION}"
    )
    if rule.limit == "rcv":
        limits = "the reference change value exp(± z·√2·σ) − 1 of the baseline, which is not symmetric"
    else:
        limits = "the smallest detectable change, z·√2·SD, in ms"
    yield (
        f"A change is the difference from the baseline. Its limits are {limits}; they hold at {rule.confidence:.0%},"
        f" with the precision {rule.precision}. After a change of scanner, software or coil they are those of"
        " reproducibility. A change beyond them is more than measurement error; whether it matters to a patient is not"
        " said. Missing values are never filled in."
    )
    yield from _precision(contents)


def _precision(contents: ReportContents) -> Iterator[str]:
    """Where the precision is from, each source once."""
    told: dict[str, list[str]] = {}
    for one in contents.precision.entries:
        n = "" if one.n_pairs is None else f", n {one.n_pairs}"
        between = "" if one.between_sd_log is None else f", between scanners {100 * one.between_sd_log:.1f} %"
        text = f"{QUANTITY_NAMES[one.quantity]}: within a subject {100 * one.within_sd_log:.1f} %{between}{n}"
        borrowed = ", borrowed" if one.borrowed else ", measured at this site"
        told.setdefault(f"{one.source}{borrowed}.", []).append(text)
    for source, what in told.items():
        yield f"Precision ({contents.precision.name}). {'; '.join(dict.fromkeys(what))}. Source: {source}"


def _voxels(contents: ReportContents) -> str:
    if contents.history.are_common:
        return "the voxels of the atlas that have a value at all visits, so that no mean changes with what was fitted"
    return "the voxels of each visit that have a value"


def _made_with(shown: Sequence[VisitRecord]) -> Table:
    """What measured each visit, so that a difference of versions is seen."""
    names = {
        "discnode": "discnode",
        "model": "networks",
        "model_sha256": "weights SHA-256",
        "settings_digest": "settings",
        "atlas_sha256": "atlas SHA-256",
        "protocol": "protocol card",
    }
    rows = []
    for key, name in names.items():
        cells = [str((visit.result or {}).get("versions", {}).get(key, words.NONE)) for visit in shown]
        short = tuple(f"{one[:12]}…" if len(one) > 20 else one for one in cells)
        rows.append(Row(name, short))
    return Table("Measured with", (Column("version"), *(Column(one.name) for one in shown)), tuple(rows))


def _editions(edition: ReportEdition) -> Table:
    """The history of the report, with who signed what."""
    rows = []
    for one in edition.earlier:
        signed = "; ".join(
            f"{sign.decision} by {sign.by}, {sign.at:%Y-%m-%d %H:%M} UTC: {sign.meaning}" for sign in one.signatures
        )
        rows.append(Row(f"{one.version}", (f"{one.made_at:%Y-%m-%d %H:%M} UTC", signed or "not signed")))
    rows.append(Row(f"{edition.version}", (f"{edition.made_at:%Y-%m-%d %H:%M} UTC", "this version")))
    note = (
        "Signatures under this version are made after it and stand in the node's record, bound to its SHA-256. Digest"
        f" of all that it shows: {edition.inputs_digest[:32]}…"
    )
    columns = (Column("version"), Column("made", is_text=True), Column("signatures", is_text=True))
    return Table("Versions and signatures", columns, tuple(rows), note)
