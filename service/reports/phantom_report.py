"""The report of a QC phantom's scan: one page with its vials, what they read, and what made the numbers."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from processing.display import QUANTITY_NAMES
from processing.results import Quantity
from service.reports import words
from service.reports.document import Column, Document, Fact, Facts, Page, Picture, Row, Table, Text

TITLE: Final = "QC phantom"
_METHOD = (
    "The vials were found as circles in the slices across them and told apart by the template. In the middle part of"
    " each (orange) the relaxation times were fitted as in discs: same code, same rules, same protocol card. Residual:"
    " the largest mean difference of signal and fit at one of the times, in percent of the signal at time zero; the"
    " same pattern in all vials is not noise."
)


def phantom_report(
    scan: Mapping[str, Any], versions: Mapping[str, str], produced_at: datetime, picture: tuple[bytes, int, int]
) -> Document:
    """The report.

    Args:
        scan: the block ``phantom`` of result.json.
        versions: of the result.
        produced_at: of the result.
        picture: PNG of the vials, its width and height in pixels.
    """
    scanner = scan["scanner"]
    facts = (
        Fact("Phantom", scan["template"]),
        Fact("Scanned", (scan["acquired_at"] or words.NONE).replace("T", " ")),
        Fact("Scanner", f"serial number {scanner['device_serial'] or words.NONE}"),
        Fact("Software", scanner["software_versions"] or words.NONE),
        Fact("Coil", scanner["receive_coil"] or words.NONE),
        Fact("Protocol", scanner["protocol"]),
        Fact("Slices used", words.count(len(scan["slices"]), "slice", "slices")),
        Fact("Turned by", f"{words.number(scan['turn_deg'], 1)}°"),
        Fact("Measured", f"{produced_at:%Y-%m-%d %H:%M} UTC"),
        Fact("Off template", f"{words.number(scan['residual_mm'], 2)} mm RMS"),
    )
    png, width, height = picture
    blocks = (
        Facts("", facts),
        Picture(
            png,
            width,
            height,
            "A slice of the phantom with its vials outlined, and its maps.",
            "The vials as they were found (blue), what was measured in them (orange), and their maps.",
        ),
        _table(scan["vials"]),
        Text("Method", (_METHOD,)),
    )
    footer = f"discnode {versions.get('discnode', '')}, settings {versions.get('settings_digest', '')}"
    return Document(TITLE, words.USE, footer, (Page(TITLE, blocks),))


def _table(vials: list[dict[str, Any]]) -> Table:
    quantities = [quantity for quantity in Quantity if any(one["quantity"] == quantity.value for one in vials)]
    whole = {(one["vial"], one["quantity"]): one for one in vials if one["slice"] is None}
    columns = [Column("Vial")]
    for quantity in quantities:
        group = f"{QUANTITY_NAMES[quantity]}, ms"
        columns += [Column(heading, group) for heading in ("nominal", "mean ± SD", "median", "voxels", "residual %")]
    columns.append(Column("SNR"))
    rows = []
    for name in dict.fromkeys(one["vial"] for one in vials):
        cells: list[str] = []
        for quantity in quantities:
            one = whole[name, quantity.value]
            largest = max((abs(value) for value in one["residuals_percent"]), default=None)
            cells += [
                words.number(one["nominal_ms"], 1),
                words.mean_and_sd(one["mean_ms"], one["sd_ms"] if one["sd_ms"] is not None else float("nan")),
                words.number(one["median_ms"], 1),
                f"{one['n']:,}",
                words.number(largest, 2),
            ]
        rows.append(Row(name, (*cells, words.number(whole[name, quantities[0].value]["snr"], 0))))
    return Table("Vials", tuple(columns), tuple(rows))
