"""Maps and discs of every measured visit as a BIDS derivative: NIfTI in seconds with sidecars (extra ``export``).

Names and units are those of the BIDS specification for quantitative MRI: suffixes T1rho and T2map, in seconds.
"""

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from config.sections import SettingsError
from dicom_io.result_reader import UnreadableResult, read_native_discs, read_native_maps
from processing.display import LEVEL_NAMES, RESEARCH_USE_ONLY
from processing.results import LUMBAR_LEVELS, Affine, Quantity
from processing.visits import Acquisition
from service.trials.exports.scrubbing import told_versions
from service.trials.exports.tables import ExportSubject
from service.trials.visit_record import VisitRecord

BIDS_VERSION = "1.9.0"
SUFFIXES = {Quantity.T1RHO: "T1rho", Quantity.T2: "T2map"}
_METHOD = "Iriondo C, Pedoia V, Majumdar S. Magn Reson Med 2020;84:1376-1390, doi 10.1002/mrm.28210"
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_bids(folder: Path, subjects: Sequence[ExportSubject], version: str) -> list[str]:
    """Write the data set; returns, in words, which visits have no maps in it and why.

    Raises:
        SettingsError: nibabel is not installed, or two subjects or visits would have one name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    labels = unique_labels([one.history.subject_id for one in subjects], "subjects")
    first = subjects[0].history if subjects else None
    description = {
        "Name": f"discnode derivatives of trial {first.plan.protocol_id if first else ''}".strip(),
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "discnode", "Version": version, "Description": RESEARCH_USE_ONLY}],
        "HowToAcknowledge": _METHOD,
    }
    _write_json(folder / "dataset_description.json", description)
    (folder / "README").write_text(_readme(), encoding="utf-8")
    rows = [
        {"participant_id": f"sub-{labels[one.history.subject_id]}", "site": one.history.site_id} for one in subjects
    ]
    _write_tsv(folder / "participants.tsv", ("participant_id", "site"), rows)
    _write_json(folder / "participants.json", {"site": {"Description": "Site ID of the trial's plan"}})
    missing = []
    for one in subjects:
        sessions = unique_labels([visit.name for visit in one.history.visits], f"visits of {one.history.subject_id}")
        for visit in one.history.visits:
            if not visit.is_measured:
                continue
            stem = f"sub-{labels[one.history.subject_id]}", f"ses-{sessions[visit.name]}"
            try:
                _write_visit(folder, stem, visit)
            except UnreadableResult as error:
                missing.append(f"{one.history.subject_id} {visit.name}: {error}")
    return missing


def unique_labels(names: Sequence[str], what: str) -> dict[str, str]:
    """A BIDS label (letters and digits alone) for each name.

    Raises:
        SettingsError: two names would have the same.
    """
    labels = {name: re.sub(r"[^A-Za-z0-9]", "", name) for name in names}
    for name, label in labels.items():
        same = [other for other, its in labels.items() if its == label]
        if len(same) > 1 or not label:
            raise SettingsError(
                f"BIDS: {what} {', '.join(same or [name])} have no labels of letters and digits of their own"
            )
    return labels


def _write_visit(folder: Path, stem: tuple[str, str], visit: VisitRecord) -> None:
    if visit.folder is None:
        raise UnreadableResult("its result is no longer there")
    maps = read_native_maps(visit.folder)
    if not maps:
        raise UnreadableResult("it has no maps")
    target = folder / stem[0] / stem[1] / "anat"
    name = "_".join(stem)
    versions = (visit.result or {}).get("versions", {})
    for quantity, one in maps.items():
        path = target / f"{name}_{SUFFIXES[quantity]}"
        _write_nifti(path.with_name(f"{path.name}.nii.gz"), one.time_ms / np.float32(1000), one.affine)
        _write_json(path.with_name(f"{path.name}.json"), _sidecar(quantity, visit.acquisition, versions))
    try:
        discs = read_native_discs(visit.folder)
    except UnreadableResult:  # an exam with one image per slice: its discs lie on the source images
        return
    path = target / f"{name}_desc-discs_dseg"
    _write_nifti(path.with_name(f"{path.name}.nii.gz"), discs.levels, discs.affine)
    rows = [{"index": level.value, "name": LEVEL_NAMES[level]} for level in LUMBAR_LEVELS]
    _write_tsv(path.with_name(f"{path.name}.tsv"), ("index", "name"), rows)
    _write_json(
        path.with_name(f"{path.name}.json"), {"Description": "Discs as they were measured", "SpatialReference": "orig"}
    )


def _sidecar(quantity: Quantity, acquisition: Acquisition | None, versions: Mapping[str, Any]) -> dict[str, Any]:
    """What BIDS asks of a quantitative map, in its units (seconds), and what made it."""
    found = acquisition or Acquisition()
    times_ms = found.t1rho_times_ms if quantity is Quantity.T1RHO else found.t2_times_ms
    entries: dict[str, Any] = {
        "Units": "s",
        "EstimationReference": _METHOD,
        "EstimationAlgorithm": "Mono-exponential decay, Levenberg-Marquardt",
        "NoValue": "NaN",
        "Manufacturer": found.manufacturer,
        "ManufacturersModelName": found.model,
        "DeviceSerialNumber": found.device_serial,
        "SoftwareVersions": found.software_versions,
        "ReceiveCoilName": found.receive_coil,
        "MagneticFieldStrength": found.field_strength_t,
        "SpinLockTime" if quantity is Quantity.T1RHO else "T2PreparationTime": [time / 1000 for time in times_ms],
        "SpinLockFrequency": found.spin_lock_hz if quantity is Quantity.T1RHO else None,
        "DiscnodeVersions": told_versions(versions),
        "Use": RESEARCH_USE_ONLY,
    }
    return {key: value for key, value in entries.items() if value not in (None, "", [])}


def _write_nifti(path: Path, array: npt.NDArray[Any], affine: Affine) -> None:
    """An array (slices, rows, columns) on an LPS grid, as NIfTI on the RAS grid of the same axes; no times in gzip."""
    nibabel = _nibabel()
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, _LPS_TO_RAS @ affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)

    with path.open("wb") as raw, gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as stream:
        stream.write(image.to_bytes())


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise SettingsError("BIDS needs nibabel: pip install 'discnode[export]'") from error
    return nibabel


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _write_tsv(path: Path, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    lines = ["\t".join(names), *("\t".join(str(row[name]) for name in names) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _readme() -> str:
    return (
        "Relaxation maps (T1rho, T2) of lumbar discs, and the discs, made by discnode. Research use only.\n"
        "Maps are in seconds, NaN where there is no value; discs: 1 = L5/S1 up to 5 = L1/L2.\n"
        "Subjects are pseudonyms of the trial; sessions are its visits, without dates.\n"
    )
