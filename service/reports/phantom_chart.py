"""The control chart of a QC phantom as a page: what is due, what holds, the picture, and every scan."""

from collections.abc import Sequence
from datetime import date

from processing.control_chart import Chart, PhantomVerdict
from processing.control_chart_figure import draw_chart
from service.reports import words
from service.reports.document import Block, Column, Document, Fact, Facts, Notice, Page, Picture, Row, Table, Text, Tone
from service.trials.phantom_scans import PhantomScan

TITLE = "Control chart of a QC phantom"
_TONES = {PhantomVerdict.OK: Tone.GOOD, PhantomVerdict.WARNING: Tone.CAUTION, PhantomVerdict.HOLD: Tone.STOP}
_METHOD = (
    "The first scans of a series (one scanner, software, coil and protocol) set mean and SD of each vial. Limits of 2"
    " and 3 SD are prediction intervals of a further scan whose probabilities (4.6 % and 0.27 %) are shared among the"
    " vials and quantities, so that a scanner in order is warned of as often as one with a single vial. All vials of a"
    " quantity together are held against their own limits, in runs, and by an exponentially weighted mean (weight 0.2),"
    " which sees slow drift. A vial further from its mean than the shares drawn as lines is a warning (dashed) or a"
    " hold (full)."
)


def chart_page(
    scanner: str, scans: Sequence[PhantomScan], chart: Chart, due: date, set_aside: Sequence[PhantomScan], software: str
) -> Document:
    """The page.

    Args:
        scanner: what the chart is of, in one line.
        scans: those that count, in order; at least one.
        chart: of these.
        due: when the next scan is expected.
        set_aside: scans of the series that do not count.
        software: version of discnode.
    """
    newest = scans[-1]
    names = ("Scanner", "Software", "Coil", "Protocol")
    facts = [Fact(name, value) for name, value in zip(names, scanner.split(" / "), strict=False)]
    limits = (
        f"set by the first {chart.rules.min_scans}" if chart.limits else f"not yet set: {chart.rules.min_scans} needed"
    )
    facts += [
        Fact("Phantom", newest.template),
        Fact("Scans", f"{len(scans)}, limits {limits}"),
        Fact("Next due by", due.isoformat()),
    ]
    events = [(one.scan_date, one.event.removeprefix("a new series begins: ")[:60]) for one in scans if one.event]
    png, width, height = draw_chart(chart, [one.scan_date for one in scans], events)
    blocks: list[Block] = [
        _notice(scans),
        Facts("", tuple(facts)),
        Picture(png, width, height, "Control charts by quantity.", "Left: all vials together. Right: each vial."),
        _remarks([*scans, *set_aside]),
        _table([*scans, *set_aside]),
        Text("Method", (_METHOD,)),
    ]
    return Document(TITLE, words.USE, f"discnode {software}", (Page(TITLE, tuple(blocks)),))


def _notice(scans: Sequence[PhantomScan]) -> Notice:
    newest = scans[-1]
    holding = [one for one in scans if one.holds]
    lines = [f"{newest.scan_date.isoformat()}: {newest.detail or 'within all limits'}."]
    if holding:
        numbers = ", ".join(str(one.id) for one in holding)
        lines.append(f"New subject reports of this scanner wait until a person accepts scan {numbers}.")
    tone = Tone.STOP if holding else _TONES[newest.verdict]
    return Notice(tone, f"Newest scan: {newest.verdict}", tuple(lines))


def _table(scans: Sequence[PhantomScan]) -> Table:
    columns = tuple(Column(name) for name in ("Scan", "Date", "Verdict", "°C"))
    rows = []
    for one in _newest_first(scans):
        verdict = "set aside" if one.is_set_aside else f"{one.verdict}{', accepted' if one.accepted_by else ''}"
        rows.append(Row(str(one.id), (one.scan_date.isoformat(), verdict, one.temperature_c or words.NONE)))
    return Table("Scans, newest first", columns, tuple(rows))


def _remarks(scans: Sequence[PhantomScan]) -> Text:
    lines = []
    for one in _newest_first(scans):
        said = [one.event, one.detail]
        if one.accepted_by:
            said.append(f"accepted by {one.accepted_by}: {one.accepted_reason}")
        if one.is_set_aside:
            said.append(f"set aside by {one.set_aside_by}: {one.set_aside_reason}")
        if any(said):
            text = "; ".join(part for part in said if part)
            lines.append(f"Scan {one.id}, {one.scan_date.isoformat()}: {text}.")
    return Text("Remarks", tuple(lines) or ("None.",))


def _newest_first(scans: Sequence[PhantomScan]) -> list[PhantomScan]:
    return sorted(scans, key=lambda scan: (scan.scan_date, scan.id), reverse=True)
