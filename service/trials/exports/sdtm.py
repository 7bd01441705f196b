"""A draft in the manner of SDTM: procedures (PR), devices (DI) and musculoskeletal findings (MK), to be mapped by the
sponsor.

The pattern is that of CDISC's examples of parametric mapping: one procedure for each scan with its device, one finding
for each value, and for a value that is not there --STAT NOT DONE with the reason in --REASND. It is a draft: domain,
test codes and locations are not taken from published controlled terminology.
"""

from collections.abc import Sequence
from pathlib import Path

from processing.results import LUMBAR_LEVELS, Level
from service.trials.exports.columns import Row, Status
from service.trials.exports.csv_files import write_table

DRAFT = (
    "DRAFT in the manner of SDTM, made by discnode. Research use only. Domain MK, test codes, locations and device"
    " parameters are proposals; the sponsor maps them to controlled terminology. Days are study days without a day 0:"
    " the day of the baseline, day zero of the plan, is day 1.\n"
)
_PR = (
    *("STUDYID", "DOMAIN", "USUBJID", "SPDEVID", "PRSEQ", "PRTRT", "PRSTAT", "PRREASND", "PRLOC"),
    *("VISITNUM", "VISIT", "VISITDY", "PRSTDY"),
)
_DI = ("STUDYID", "DOMAIN", "SPDEVID", "DISEQ", "DIPARMCD", "DIPARM", "DIVAL")
_MK = (
    *("STUDYID", "DOMAIN", "USUBJID", "SPDEVID", "MKSEQ", "MKTESTCD", "MKTEST", "MKORRES", "MKORRESU", "MKSTRESC"),
    *("MKSTRESN", "MKSTRESU", "MKSTAT", "MKREASND", "MKLOC", "MKPORTOT", "MKMETHOD", "MKBLFL", "VISITNUM", "VISIT"),
    *("VISITDY", "MKDY"),
)
_TESTS = {"T1rho": ("T1RHO", "T1rho Relaxation Time, Mean"), "T2": ("T2", "T2 Relaxation Time, Mean")}
_PARAMETERS = {
    "manufacturer": ("MANUF", "Manufacturer"),
    "model": ("MODEL", "Model"),
    "device_serial": ("SERNUM", "Serial Number"),
    "field_strength_t": ("FIELDT", "Magnetic Field Strength (T)"),
}
_REGIONS = {"whole_disc": "WHOLE", "nucleus": "NUCLEUS", "anterior_annulus": "ANTERIOR ANNULUS"}
_REGIONS |= {"posterior_annulus": "POSTERIOR ANNULUS"}


def write_sdtm(folder: Path, tidy: Sequence[Row], visits: Sequence[Row], baseline: str) -> None:
    """Write pr.csv, di.csv, mk.csv and a note that they are a draft.

    Args:
        folder: is made.
        tidy: rows of the tidy table.
        visits: rows of the table of visits.
        baseline: name of the baseline.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "DRAFT.txt").write_text(DRAFT, encoding="utf-8")
    counting = [row for row in visits if row["status"] != Status.SET_ASIDE]
    devices = _devices(counting)
    numbers = _visit_numbers(counting)
    write_table(folder / "pr.csv", _PR, _procedures(counting, devices, numbers))
    write_table(folder / "di.csv", _DI, _identities(counting, devices))
    scanned_with: dict[tuple[str, str, str], tuple[str, str, str]] = {}
    for row in counting:  # the scan that stands for a visit comes before further ones that are held
        scanned_with.setdefault((row["site"], row["subject"], row["visit"]), _device_of(row))
    write_table(folder / "mk.csv", _MK, _findings(tidy, devices, scanned_with, numbers, baseline))


def _device_of(row: Row) -> tuple[str, str, str]:
    return row["manufacturer"], row["model"], row["device_serial"]


def _devices(visits: Sequence[Row]) -> dict[tuple[str, str, str], str]:
    """Scanner -> its number among the devices of the study; none for a visit without a scan."""
    found = sorted({_device_of(row) for row in visits if any(_device_of(row))})
    return {device: f"MR{number:02d}" for number, device in enumerate(found, start=1)}


def _visit_numbers(visits: Sequence[Row]) -> dict[tuple[str, str], float]:
    """(subject, visit) -> VISITNUM: planned visits are counted, unscheduled ones stand between, as 2.1."""
    planned = dict.fromkeys(row["visit"] for row in visits if row["planned_day"] is not None)
    order = {name: float(number) for number, name in enumerate(planned, start=1)}
    numbers: dict[tuple[str, str], float] = {}
    last: dict[str, float] = {}
    for row in visits:
        subject, name = row["subject"], row["visit"]
        number = order.get(name, round(last.get(subject, 0.0) + 0.1, 1))
        numbers[subject, name] = last[subject] = number
    return numbers


def _procedures(
    visits: Sequence[Row], devices: dict[tuple[str, str, str], str], numbers: dict[tuple[str, str], float]
) -> list[Row]:
    rows: list[Row] = []
    sequence: dict[str, int] = {}
    for row in visits:
        sequence[row["subject"]] = sequence.get(row["subject"], 0) + 1
        done = row["status"] in (Status.MEASURED, Status.HELD, Status.AWAITED, Status.VISIT_NOT_EVALUABLE)
        rows.append(
            {
                **_subject(row, "PR"),
                "SPDEVID": devices.get(_device_of(row), ""),
                "PRSEQ": sequence[row["subject"]],
                "PRTRT": "MRI, PARAMETRIC MAPPING OF T1RHO AND T2",
                "PRSTAT": "" if done else "NOT DONE",
                "PRREASND": "" if done else row["reason"].upper(),
                "PRLOC": "LUMBAR SPINE",
                **_visit(row, numbers),
                "PRSTDY": study_day(row["day"]),
            }
        )
    return rows


def _identities(visits: Sequence[Row], devices: dict[tuple[str, str, str], str]) -> list[Row]:
    rows: list[Row] = []
    for device, number in devices.items():
        example = next(row for row in visits if _device_of(row) == device)
        told = [name for name in _PARAMETERS if example[name] not in (None, "")]
        rows += [
            {
                "STUDYID": example["trial"],
                "DOMAIN": "DI",
                "SPDEVID": number,
                "DISEQ": place,
                "DIPARMCD": _PARAMETERS[name][0],
                "DIPARM": _PARAMETERS[name][1],
                "DIVAL": example[name],
            }
            for place, name in enumerate(told, start=1)
        ]
    return rows


def _findings(
    tidy: Sequence[Row],
    devices: dict[tuple[str, str, str], str],
    scanned_with: dict[tuple[str, str, str], tuple[str, str, str]],
    numbers: dict[tuple[str, str], float],
    baseline: str,
) -> list[Row]:
    rows: list[Row] = []
    sequence: dict[str, int] = {}
    for row in tidy:
        sequence[row["subject"]] = sequence.get(row["subject"], 0) + 1
        code, test = _TESTS[row["quantity"]]
        value = row["value_ms"]
        text = "" if value is None else f"{value:.4f}"
        rows.append(
            {
                **_subject(row, "MK"),
                "SPDEVID": devices.get(scanned_with[row["site"], row["subject"], row["visit"]], ""),
                "MKSEQ": sequence[row["subject"]],
                "MKTESTCD": code,
                "MKTEST": test,
                "MKORRES": text,
                "MKORRESU": "" if value is None else "ms",
                "MKSTRESC": text,
                "MKSTRESN": value,
                "MKSTRESU": "" if value is None else "ms",
                "MKSTAT": "NOT DONE" if value is None else "",
                "MKREASND": _reason(row) if value is None else "",
                "MKLOC": f"INTERVERTEBRAL DISC {_level(row['level'])}",
                "MKPORTOT": _REGIONS[row["region"]],
                "MKMETHOD": "MRI",
                "MKBLFL": "Y" if row["visit"] == baseline and value is not None else "",
                **_visit(row, numbers),
                "MKDY": study_day(row["day"]),
            }
        )
    return rows


def _reason(row: Row) -> str:
    """CDISC's example of an image that cannot be read says NON-EVALUABLE IMAGE."""
    if row["status"] in (Status.NOT_EVALUABLE, Status.VISIT_NOT_EVALUABLE, Status.NO_VALUE):
        return "NON-EVALUABLE IMAGE"
    return str(row["reason"]).upper()


def _subject(row: Row, domain: str) -> Row:
    return {
        "STUDYID": row["trial"],
        "DOMAIN": domain,
        "USUBJID": f"{row['trial']}-{row['site']}-{row['subject']}",
    }


def _visit(row: Row, numbers: dict[tuple[str, str], float]) -> Row:
    number = f"{numbers[row['subject'], row['visit']]:g}"
    return {"VISITNUM": number, "VISIT": row["visit"].upper(), "VISITDY": study_day(row["planned_day"])}


def study_day(day: int | None) -> int | None:
    """A day from day zero as SDTM counts: there is no day 0, so that day zero is day 1."""
    return None if day is None else day + 1 if day >= 0 else day


def _level(name: str) -> str:
    level = Level[name]
    assert level in LUMBAR_LEVELS
    return f"{name[:2]}/{name[2:]}"
