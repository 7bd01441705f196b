"""The columns of the tables of an export: what each means, its unit, what it may hold, and where it comes from."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from config.sections import SettingsError
from processing.refusal import ReasonCode
from processing.results import LUMBAR_LEVELS, Quantity, Region
from processing.visits import ChangeVerdict
from service.trials.blinding import check_no_arm

Kind = Literal["text", "whole number", "number", "yes or no"]
Row = dict[str, Any]


class Status(StrEnum):
    """Why a value is there or not. A value that is not there is a row with its reason, never an absent row."""

    MEASURED = "MEASURED"
    NO_SCAN = "NO_SCAN"  # no scan of the visit has come
    HELD = "HELD"  # a person must decide about the scan first; see reason_code
    AWAITED = "AWAITED"  # the scan came and is not measured yet
    VISIT_NOT_EVALUABLE = "VISIT_NOT_EVALUABLE"  # the scan could not be measured; see reason_code
    NOT_EVALUABLE = "NOT_EVALUABLE"  # a person declared the disc not evaluable, from this or an earlier visit on
    NO_VALUE = "NO_VALUE"  # the disc was not found, or too many of its voxels have no value
    SET_ASIDE = "SET_ASIDE"  # the scan does not count; only in visits.csv


WORDS = {
    Status.MEASURED: "",
    Status.NO_SCAN: "no scan of this visit has come",
    Status.HELD: "the scan is held until a person decides about it",
    Status.AWAITED: "the scan is not measured yet",
    Status.VISIT_NOT_EVALUABLE: "the scan could not be evaluated",
    Status.NOT_EVALUABLE: "declared not evaluable by a person from this visit or an earlier one on",
    Status.NO_VALUE: "the disc was not found, or too few of its voxels have a value",
    Status.SET_ASIDE: "the scan does not count for the visit",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``source``: of which of the node's facts it is."""

    name: str
    kind: Kind
    unit: str
    meaning: str
    allowed: str
    source: str


def _text(name: str, meaning: str, allowed: str, source: str) -> Column:
    return Column(name, "text", "", meaning, allowed, source)


def _number(name: str, unit: str, meaning: str, source: str, allowed: str = "any; empty: none") -> Column:
    return Column(name, "number", unit, meaning, allowed, source)


def _whole(name: str, unit: str, meaning: str, source: str) -> Column:
    return Column(name, "whole number", unit, meaning, "any; empty: none", source)


_CODES = "; ".join(code.value for code in ReasonCode)
_WHO = (
    _text("trial", "Protocol ID of the trial", "one", "plan: protocol_id"),
    _text("site", "Site ID", "those of the plan", "subjects"),
    _text("subject", "Pseudonym of the subject in the trial", "of the plan's form", "subjects"),
    _text("visit", "Name of the visit", "those of the plan; unscheduled, unscheduled 2, ...", "plan, visits"),
    _whole("planned_day", "d", "Planned day of the visit from day zero; empty: unscheduled", "plan: visits"),
    _whole(
        "day", "d", "Day of the scan from the subject's day zero; empty: no scan, or day zero is not known", "visits"
    ),
)
_WHY = (
    _text("status", "Whether there is a value, and why not", "; ".join(Status), "visits, subjects, results"),
    _text("reason_code", "Reason code of a scan that is held or could not be measured", f"{_CODES}; empty", "visits"),
    _text("reason", "The status in words; empty where there is a value", "fixed texts", "status"),
)
_MADE_WITH = (
    _text("discnode", "Version of the software", "any; empty: no result", "result.json: versions"),
    _text("model_sha256", "SHA-256 of the networks' weights", "64 hex digits; empty", "result.json: versions"),
    _text("atlas_sha256", "SHA-256 of the atlas", "64 hex digits; empty", "result.json: versions"),
    _text("settings_digest", "Digest of settings and protocol cards", "16 hex digits; empty", "result.json: versions"),
    _text("plan_sha256", "SHA-256 of the plan's text as registered", "64 hex digits", "plan"),
)

#: One row for each subject, visit, level, region and quantity.
TIDY: tuple[Column, ...] = (
    *_WHO,
    _text("level", "Disc, named by the vertebrae", "; ".join(one.name for one in LUMBAR_LEVELS), "result.json: discs"),
    _text("region", "Part of the disc", "; ".join(one.value for one in Region), "result.json: discs"),
    _text("quantity", "Relaxation time", "; ".join(one.value for one in Quantity), "result.json: discs"),
    _number("value_ms", "ms", "Mean over the voxels with a value", "results", "> 0; empty: see status"),
    _number("sd_ms", "ms", "SD over these voxels", "results", ">= 0; empty"),
    _whole("n_voxels", "", "Voxels with a value that the mean is over", "results"),
    _whole("n_excluded", "", "Voxels of the region without a value", "results"),
    _text(
        "voxels", "common: those with a value at all visits; each: those of the visit itself", "common; each", "plan"
    ),
    *_WHY,
    _number("change_ms", "ms", "Value minus that of the baseline", "changes"),
    _number("change_percent", "%", "The same in percent of the baseline's value", "changes"),
    _number("lower_limit_ms", "ms", "A change below it is beyond measurement error", "changes"),
    _number("upper_limit_ms", "ms", "A change above it is beyond measurement error", "changes"),
    _text(
        "verdict",
        "What is said of the change; empty at the baseline",
        "; ".join(one.value for one in ChangeVerdict),
        "changes",
    ),
    Column(
        "is_primary",
        "yes or no",
        "",
        "Declared as primary in the plan; empty: withheld, as it would tell the treated level",
        "yes; no; empty",
        "plan: primary",
    ),
    _number("volume_mm3", "mm3", "Volume of the whole disc in the slab", "result.json: discs", "> 0; empty"),
    _number("registration_dice", "", "Overlap of the disc with its atlas disc", "result.json: discs", "0 to 1; empty"),
    *_MADE_WITH,
)

#: One row for each planned or unscheduled visit, and each scan that does not count.
VISITS: tuple[Column, ...] = (
    *_WHO,
    _whole("window_first_day", "d", "First day of the visit's window", "plan: visits"),
    _whole("window_last_day", "d", "Last day of the visit's window", "plan: visits"),
    _number("hour", "h", "Time of day on the scanner's clock, as hours since midnight", "headers", "0 to 24; empty"),
    *_WHY,
    _text(
        "deviations",
        "What differs from the baseline's acquisition: hard (no change is judged), limits (wider limits) or soft",
        "field (hard, limits or soft), joined by ;",
        "acquisition, phantoms",
    ),
    _text("phantom", "Verdict on the nearest scan of the QC phantom", "ok; warning; hold; none; empty", "phantoms"),
    _text("manufacturer", "Of the scanner", "any", "headers"),
    _text("model", "Of the scanner", "any", "headers"),
    _text("device_serial", "Serial number of the scanner", "any", "headers"),
    _text("software_versions", "Of the scanner", "any", "headers"),
    _text("receive_coil", "Its name", "any", "headers"),
    _text("protocol", "Protocol card", "any", "results"),
    _number("field_strength_t", "T", "Magnetic field", "headers"),
    _number("spin_lock_hz", "Hz", "Frequency of the spin lock", "headers, protocol card"),
    _text("t1rho_times_ms", "Spin-lock times, ms", "numbers joined by ;", "headers"),
    _text("t2_times_ms", "Preparation times, ms", "numbers joined by ;", "headers"),
    _whole("n_slices", "", "Slices", "headers"),
    *_MADE_WITH,
)

#: Only where the plan's ``exports.real_dates`` says so.
SCAN_DATE = _text("scan_date", "Date of the scan on the scanner's clock", "YYYY-MM-DD; empty", "headers")
#: Only where it may be shown: the plan's blinding, or after the trial was unblinded.
TREATED_LEVEL = _text("treated_level", "The disc that was treated", "levels; empty: not told", "plan: treated_levels")

_CODEBOOK = ("table", "column", "meaning", "unit", "kind", "allowed", "source")


def codebook(tables: dict[str, tuple[Column, ...]]) -> list[Row]:
    """One row for each column of each table, in order.

    Raises:
        SettingsError: a column speaks of an arm, which is never in an export.
    """
    rows: list[Row] = []
    for table, columns in tables.items():
        check_no_arm(column.name for column in columns)
        for column in columns:
            values = (table, column.name, column.meaning, column.unit, column.kind, column.allowed, column.source)
            rows.append(dict(zip(_CODEBOOK, values, strict=True)))
    return rows


def check_rows(rows: list[Row], columns: tuple[Column, ...]) -> None:
    """Pass if every row has exactly the columns of its table.

    Raises:
        SettingsError: a row does not.
    """
    names = [column.name for column in columns]
    for row in rows:
        if list(row) != names:
            raise SettingsError(f"a row has the columns {', '.join(row)}; the codebook says {', '.join(names)}")
