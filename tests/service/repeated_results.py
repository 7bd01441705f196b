"""Folders of results as scan and rescan of subjects leave them, made cheaply from one written result."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
from pydicom import dcmread

from dicom_io.acquisition import acquisition_entry
from dicom_io.result_objects import write_objects
from processing.results import Quantity
from processing.visits import Acquisition
from tests import example_exam

ACQUISITION = Acquisition(
    manufacturer="GE MEDICAL SYSTEMS",
    model="DISCOVERY MR750",
    device_serial="A1",
    software_versions="27",
    receive_coil="SPINE",
    protocol="ge-mapss",
    field_strength_t=3.0,
    spin_lock_hz=300.0,
    t1rho_times_ms=(0.0, 10.0, 40.0, 80.0),
    t2_times_ms=(0.0, 12.8, 25.7, 51.4),
    repetition_time_ms=5.2,
    pixel_bandwidth_hz=488.0,
    matrix=(256, 256),
    pixel_spacing_mm=(0.78, 0.78),
    slice_thickness_mm=4.0,
    slice_spacing_mm=4.0,
    n_slices=12,
    slice_normal=(-1.0, 0.0, 0.0),
    acquired_at=datetime(2026, 3, 14, 9, 30),
)


def template(folder: Path) -> Path:
    """The objects in atlas space of one result."""
    write_objects(example_exam.exam_result(), example_exam.source_exam(), np.zeros((8, 8, 3), np.uint8), folder)
    for path in (folder / "dicom").iterdir():
        if "atlas" not in path.name:
            path.unlink()
    return folder


def write_scan(
    source: Path,
    folder: Path,
    change: Callable[[Quantity, np.ndarray], np.ndarray],
    acquisition: Acquisition = ACQUISITION,
) -> Path:
    """A result with the times of ``source`` times what ``change`` (quantity, labels 10 x level + region) gives."""
    (folder / "dicom").mkdir(parents=True)
    labels = np.stack([dcmread(path).pixel_array for path in sorted((source / "dicom").glob("atlas-*.dcm"))])
    for path in (source / "dicom").iterdir():
        dataset = dcmread(path)
        for quantity in Quantity:
            if path.name == f"{quantity.value.lower()}-atlas.dcm":
                values = np.frombuffer(dataset.FloatPixelData, np.float32).reshape(labels.shape)
                dataset.FloatPixelData = (values * change(quantity, labels)).astype(np.float32).tobytes()
        dataset.save_as(folder / "dicom" / path.name)
    document = {
        "schema": "discnode.result/1",
        "status": "ok",
        "acquisition": acquisition_entry(acquisition),
        "versions": {"atlas_sha256": "cd" * 32},
    }
    (folder / "result.json").write_text(json.dumps(document), encoding="utf-8")
    return folder
