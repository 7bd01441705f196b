"""How an exam was acquired, from the headers of its measured scan, and as it stands in ``result.json``."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import TypeAdapter

from dicom_io.frame_header import FrameHeader, frame_headers
from dicom_io.headers import ImageFacts
from dicom_io.raw_header import RawHeader, parse, quiet_pydicom
from dicom_io.slice_grid import ImageSeries
from processing.refusal import UnsuitableInput
from processing.results import Quantity
from processing.visits import Acquisition
from processing.volume import slice_normal, spacing_mm

#: Spin-lock frequency as sites write it into descriptions: "FSL 500", "SL 300Hz", "T1rho 500 Hz".
_SPIN_LOCK = re.compile(r"(?i)(?:\bf?sl[ _=:-]*(\d{2,4})[ _]*hz\b|\bfsl[ _=:-]*(\d{2,4})\b|\b(\d{2,4})[ _]*hz\b)")

#: PS3.5 6.2: DA and TM, or DT; an offset from UTC may follow a DT.
_MOMENT = re.compile(r"(\d{4})[-./: ]?(\d{2})[-./: ]?(\d{2})(\d{2}):?(\d{2}):?(\d{2})?(?:\.\d{1,6})?(?:[+-]\d{4})?")

_LONGEST_TEXT = 256
_HALF_A_DAY = timedelta(hours=12)
_FORM = TypeAdapter(Acquisition)


def read_acquisition(measured: Sequence[ImageSeries], times_ms: Mapping[Quantity, Sequence[float]]) -> Acquisition:
    """How the measured scans were acquired; the first scan tells where they differ (T2 beside T1rho).

    Args:
        measured: the series that are measured.
        times_ms: of each quantity, as written in the headers.

    Raises:
        OSError: a file cannot be read.
    """
    first = measured[0]
    facts = first.grid[0][0]
    spacing = spacing_mm(first.affine)
    normal = [round(float(one), 5) for one in slice_normal(first.affine)]
    root = RawHeader(parse(facts.path.read_bytes()))
    with quiet_pydicom():
        header = _header_of(root, facts)
        return Acquisition(
            manufacturer=_plain(facts.manufacturer),
            model=_plain(facts.manufacturer_model_name),
            device_serial=_plain(facts.device_serial_number),
            software_versions=_plain(facts.software_versions),
            receive_coil=_text(header, "MRReceiveCoilSequence/ReceiveCoilName", "ReceiveCoilName"),
            protocol=" + ".join(dict.fromkeys(series.card.name for series in measured)),
            field_strength_t=_number(header, "MagneticFieldStrength"),
            spin_lock_hz=_spin_lock_hz(measured),
            t1rho_times_ms=tuple(times_ms.get(Quantity.T1RHO, ())),
            t2_times_ms=tuple(times_ms.get(Quantity.T2, ())),
            repetition_time_ms=_number(header, "MRTimingAndRelatedParametersSequence/RepetitionTime", "RepetitionTime"),
            pixel_bandwidth_hz=_number(header, "MRImagingModifierSequence/PixelBandwidth", "PixelBandwidth"),
            matrix=(facts.rows, facts.columns),
            pixel_spacing_mm=(round(spacing[1], 5), round(spacing[2], 5)),
            slice_thickness_mm=facts.slice_thickness_mm,
            slice_spacing_mm=round(spacing[0], 4) if len(first.grid[0]) > 1 else None,
            n_slices=len(first.grid[0]),
            slice_normal=(normal[0], normal[1], normal[2]),
            acquired_at=_clock(first, header),
        )


def _header_of(root: RawHeader, facts: ImageFacts) -> FrameHeader:
    frames = frame_headers(root)
    return frames[facts.frame_number - 1] if facts.frame_number and frames else FrameHeader(root)


def _plain(text: str) -> str:
    """Several values of one attribute as one text, not longer than a page can bear."""
    return " ".join(text.replace("\\", " ").split())[:_LONGEST_TEXT]


def _text(header: FrameHeader, *places: str) -> str:
    """What cannot be read is not known: nothing here decides what is measured."""
    try:
        return _plain(header.text(*places))
    except UnsuitableInput:
        return ""


def _number(header: FrameHeader, *places: str) -> float | None:
    try:
        number = header.decimal(*places)
    except UnsuitableInput:
        return None
    return number if number is not None and number > 0 else None


def _spin_lock_hz(measured: Sequence[ImageSeries]) -> float | None:
    """As the description of the T1rho scan says it, else as its protocol card does; no standard attribute holds it."""
    for series in measured:
        if not series.card.times.t1rho_ms:
            continue
        for text in (series.instances[0].series_description, series.instances[0].protocol_name):
            found = _SPIN_LOCK.search(text)
            if found:
                return float(next(group for group in found.groups() if group))
        return series.card.spin_lock_frequency_hz
    return None


def _clock(series: ImageSeries, header: FrameHeader) -> datetime | None:
    """When the scan began by the scanner's own clock.

    A TM is local time; a DT may have been given an offset, so that where a classic image has both the TM is taken.
    ContentTime may be that of a later reconstruction and comes last; StudyTime, often hours earlier, is not taken.
    """
    candidates = [_joined(header, "AcquisitionDate", "AcquisitionTime")] if not header.is_one_of_many else []
    began = [moment for one in series.instances if (moment := _moment(one.acquisition_time)) is not None]
    candidates += [min(began, default=None)]
    candidates += [_joined(header, "SeriesDate", "SeriesTime"), _joined(header, "ContentDate", "ContentTime")]
    return next((moment for moment in candidates if moment is not None), None)


def _joined(header: FrameHeader, date: str, time: str) -> datetime | None:
    """Date and time of day. A time without a date of its own is of the study's day, or, after midnight, of the next."""
    at, day = _text(header, f"/{time}"), _text(header, f"/{date}")
    if day or not at:
        return _moment(day + at)
    moment = _moment(_text(header, "/StudyDate") + at)
    began = _moment(_text(header, "/StudyDate") + _text(header, "/StudyTime"))
    if moment is not None and began is not None and began - moment > _HALF_A_DAY:
        moment += timedelta(days=1)
    return moment


def _moment(text: str) -> datetime | None:
    """Date and time of day as written, without offset; None where it is no moment, or a day alone."""
    found = _MOMENT.fullmatch(text.replace(" ", ""))
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups())
    try:
        return datetime(year, month, day, hour, minute, second)
    except ValueError:
        return None


def acquisition_entry(one: Acquisition) -> dict[str, Any]:
    """The block ``acquisition`` of ``result.json``."""
    entry: dict[str, Any] = _FORM.dump_python(one, mode="json")
    return entry


def acquisition_of_entry(entry: Mapping[str, Any] | None) -> Acquisition | None:
    """The record that :func:`acquisition_entry` wrote; None where a result has none (refused, or of an older version).

    Raises:
        pydantic.ValidationError: it is no such block.
    """
    return None if entry is None else _FORM.validate_python(entry)
