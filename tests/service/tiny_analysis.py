"""Small analyses for tests of the node: real files and a real DICOM object, no science."""

import hashlib
import json
import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from config.settings import Settings
from processing.refusal import Reason, ReasonCode, UnsuitableInput
from service.result_versions import Edition


@dataclass(frozen=True, slots=True)
class TinyObject:
    kind: str
    path: Path
    sop_instance_uid: str

    def goes_with(self, kinds: Collection[str]) -> bool:
        return self.kind in kinds


@dataclass(frozen=True, slots=True)
class TinySummary:
    status: str
    reasons: tuple[Reason, ...]
    objects: tuple[TinyObject, ...]


def analyse(
    paths: Sequence[Path], out: Path, settings: Settings, produced_at: datetime, *, edition: Edition | None = None
) -> TinySummary:
    """Two Secondary Captures of one black pixel, whose UIDs follow from the inputs; result.json names the images."""
    uids = sorted(str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths)
    source = pydicom.dcmread(paths[0], stop_before_pixels=True)
    objects = []
    building = out.with_name(out.name + ".building")
    building.mkdir()
    for kind in ("seg", "overlay"):
        digest = hashlib.sha256(f"{uids} {kind}".encode()).digest()
        uid = f"2.25.{uuid.UUID(bytes=digest[:16]).int}"
        _write_capture(building / f"{kind}.dcm", uid, source, produced_at)
        objects.append(TinyObject(kind, Path(f"{kind}.dcm"), uid))
    content = {
        "schema": "discnode.result/1",
        "status": "ok",
        "reasons": [],
        "images": len(uids),
        "replaces": edition.replaces if edition else None,
        "objects": [
            {"kind": one.kind, "path": str(one.path), "sop_instance_uid": one.sop_instance_uid} for one in objects
        ],
    }
    (building / "result.json").write_text(json.dumps(content))
    building.rename(out)
    return TinySummary("ok", (), tuple(objects))


def analyse_with_mask(
    paths: Sequence[Path],
    out: Path,
    settings: Settings,
    produced_at: datetime,
    *,
    mask: Path | None = None,
    edition: Edition | None = None,
) -> TinySummary:
    """As :func:`analyse`; result.json names the segmentation of a person that came with the job."""
    if mask is None:
        return analyse(paths, out, settings, produced_at)
    header = pydicom.dcmread(mask, stop_before_pixels=True)
    content = {"status": "ok", "corrected": str(header.SOPInstanceUID), "objects": []}
    out.mkdir()
    (out / "result.json").write_text(json.dumps(content))
    return TinySummary("ok", (), ())


def analyse_slowly(
    paths: Sequence[Path], out: Path, settings: Settings, produced_at: datetime, *, edition: Edition | None = None
) -> TinySummary:
    """As :func:`analyse`, after three seconds of work."""
    end_s = time.monotonic() + 3.0
    while time.monotonic() < end_s:
        hashlib.sha256(b"work" * 1000).digest()
    return analyse(paths, out, settings, produced_at)


def analyse_with_a_bug(
    paths: Sequence[Path], out: Path, settings: Settings, produced_at: datetime, *, edition: Edition | None = None
) -> TinySummary:
    """Fails like a bug does; its message holds something that must not reach the log."""
    out.mkdir()
    (out / "half-written").write_text("x")
    raise ZeroDivisionError("Phantom^Small divided")


def refuse(
    paths: Sequence[Path], out: Path, settings: Settings, produced_at: datetime, *, edition: Edition | None = None
) -> TinySummary:
    """Finds the images unsuitable."""
    raise UnsuitableInput(ReasonCode.LEVELS_AMBIGUOUS, "six discs, no sacrum")


def _write_capture(path: Path, uid: str, source: pydicom.Dataset, produced_at: datetime) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = uid
    image = FileDataset(None, {}, preamble=b"\0" * 128, file_meta=meta)
    image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, uid
    image.StudyInstanceUID, image.SeriesInstanceUID = source.StudyInstanceUID, f"{uid}.1"[:64]
    image.PatientID, image.PatientName = source.PatientID, source.PatientName
    image.Modality, image.ConversionType = "OT", "SYN"
    image.ContentDate, image.ContentTime = produced_at.strftime("%Y%m%d"), produced_at.strftime("%H%M%S.%f")
    image.Rows = image.Columns = image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit, image.PixelRepresentation = 7, 0
    image.PixelData = b"\0\0"
    image["PixelData"].VR = "OB"
    image.save_as(path, enforce_file_format=True)
