"""Other programs on the outputs: dciodvfy and dcentvfy (dicom3tools), dcmqi."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import example_exam
import nibabel
import numpy as np
import pytest
from enhanced_object import enhanced_source

from dicom_io.atlas_images import atlas_layouts
from dicom_io.document_writer import ReportPdf
from dicom_io.result_objects import write_objects
from processing.results import Level, Quantity, Region

pytestmark = pytest.mark.peers

PICTURE = np.random.default_rng(2).integers(0, 256, (40, 60, 3), np.uint8)
OBJECTS = (
    *("seg", "t1rho", "t1rho-se", "t1rho-residual", "t2", "t2-se", "t2-residual", "sr", "sr-outlines", "overlay"),
    *("reference-001", "mr-t1rho-001", "mr-t2-001", "atlas-001", "t1rho-atlas", "t2-se-atlas", "t2-residual-atlas"),
    *("deformation-l4l5", "report"),
)
#: What a map file holds, of a fitted map.
MAPS = {
    "t1rho": (Quantity.T1RHO, "time_ms", "ms"),
    "t1rho-se": (Quantity.T1RHO, "standard_error_ms", "ms"),
    "t1rho-residual": (Quantity.T1RHO, "residual_rms", "[arb'U]"),
    "t2": (Quantity.T2, "time_ms", "ms"),
    "t2-se": (Quantity.T2, "standard_error_ms", "ms"),
    "t2-residual": (Quantity.T2, "residual_rms", "[arb'U]"),
}
PDF = ReportPdf("Title", b"%PDF-1.4\n1234567%%EOF", "patient_id")


def tool(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=120, env={**os.environ, "LC_ALL": "C"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module", params=["straight", "oblique", "single slice", "two Enhanced MR objects"])
def exam(request, tmp_path_factory):
    """(result, source, folder) with the objects written to ``dicom`` and the sources, with pixels, to ``source``."""
    folder = tmp_path_factory.mktemp(request.param.replace(" ", "-"))
    rotation = example_exam.OBLIQUE if request.param == "oblique" else example_exam.STRAIGHT
    result, source = example_exam.exam_result(), example_exam.source_exam(rotation)
    if request.param == "single slice":
        result, source = example_exam.single_slice(result, source)
    (folder / "source").mkdir()
    if request.param == "two Enhanced MR objects":
        source = enhanced_source(source, [folder / "source" / "1.dcm", folder / "source" / "2.dcm"])
        write_objects(result, source, PICTURE, folder, PDF)
        return result, source, folder
    write_objects(result, source, PICTURE, folder, PDF)
    for number, image in enumerate(source.all_instances):
        image.PixelData = np.full(example_exam.SHAPE[1:], number, np.uint16).tobytes()
        image["PixelData"].VR = "OW"
        image.save_as(folder / "source" / f"{number}.dcm", enforce_file_format=True)
    return result, source, folder


@pytest.mark.parametrize("name", OBJECTS)
def test_dciodvfy_finds_no_error(exam, name):
    done = subprocess.run(
        [tool("dciodvfy"), "-new", str(exam[2] / "dicom" / f"{name}.dcm")], capture_output=True, text=True, timeout=120
    )
    assert "Error" not in done.stderr, done.stderr
    # the source's TSL 0 stands in Echo Time
    known = ("99DISCNODE", "Unrecognized defined term = <QUANTITY>", "</EchoTime(0018,0081)[1]> - Value is zero")
    warnings = [line for line in done.stderr.splitlines() if line.startswith("Warning")]
    assert [line for line in warnings if not any(text in line for text in known)] == []


def test_dciodvfy_finds_no_error_in_an_exam_without_echoes_and_with_one_disc(tmp_path):
    write_objects(
        example_exam.exam_result((Level.L3L4,), with_maps=False), example_exam.source_exam(), PICTURE, tmp_path, PDF
    )
    for name in ("seg", "sr", "overlay", "report"):
        done = subprocess.run(
            [tool("dciodvfy"), "-new", str(tmp_path / "dicom" / f"{name}.dcm")],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "Error" not in done.stderr, done.stderr


def test_dcentvfy_finds_patient_study_and_frame_of_reference_equal_to_the_source(exam):
    folder = exam[2]
    text = run(tool("dcentvfy"), *sorted((folder / "dicom").iterdir()), *sorted((folder / "source").iterdir()))
    # dcentvfy 2022 places the Accession Number of a report in another entity than that of an image, whatever its value.
    lines = [line for line in text.splitlines() if "Different information entities" not in line]
    assert lines == []


def test_dcmqi_reads_the_discs_where_they_lie(exam, tmp_path):
    result, source, folder = exam
    run(
        *(tool("segimage2itkimage"), "--inputDICOM", folder / "dicom" / "seg.dcm"),
        *("--outputDirectory", tmp_path, "--prefix", "disc", "-t", "nii"),
    )
    for number, level in enumerate(result.mask.found, start=1):
        image = nibabel.load(tmp_path / f"disc-{number}.nii.gz")
        expected = lps_of(np.argwhere(result.mask.levels == level), source.affine)
        found = ras_to_lps(nibabel.affines.apply_affine(image.affine, np.argwhere(np.asarray(image.dataobj) > 0)))
        np.testing.assert_allclose(in_order(found), in_order(expected), atol=1e-3)


@pytest.mark.parametrize("name", MAPS)
def test_dcmqi_reads_the_map_where_it_lies(exam, tmp_path, name):
    result, source, folder = exam
    quantity, attribute, unit = MAPS[name]
    run(
        *(tool("paramap2itkimage"), "--inputDICOM", folder / "dicom" / f"{name}.dcm"),
        *("--outputDirectory", tmp_path, "--prefix", "map", "-t", "nii"),
    )
    image = nibabel.load(tmp_path / "map-pmap.nii.gz")
    values = np.asarray(image.dataobj)
    indices = np.argwhere(values > 0)
    found = np.column_stack([ras_to_lps(nibabel.affines.apply_affine(image.affine, indices)), values[values > 0]])
    truth = getattr(result.maps[quantity], attribute)
    fitted = np.isfinite(truth)
    expected = np.column_stack([lps_of(np.argwhere(fitted), source.affine), truth[fitted]])
    np.testing.assert_allclose(in_order(found), in_order(expected), atol=1e-3)
    meta = json.loads((tmp_path / "map-meta.json").read_text())
    assert meta["MeasurementUnitsCode"]["CodeValue"] == unit


@pytest.mark.parametrize("name", MAPS)
def test_dcmqi_reads_the_map_in_atlas_space_where_its_discs_stand(exam, tmp_path, name):
    result, _, folder = exam
    quantity, attribute, _ = MAPS[name]
    run(
        *(tool("paramap2itkimage"), "--inputDICOM", folder / "dicom" / f"{name}-atlas.dcm"),
        *("--outputDirectory", tmp_path, "--prefix", "map", "-t", "nii"),
    )
    image = nibabel.load(tmp_path / "map-pmap.nii.gz")
    values = np.asarray(image.dataobj)
    points = ras_to_lps(nibabel.affines.apply_affine(image.affine, np.argwhere(values > 0)))
    found = np.column_stack([points, values[values > 0]])
    ((_, layout, discs),) = atlas_layouts(result)
    expected = []
    for disc in discs:
        truth = getattr(disc.maps[quantity], attribute)
        places = lps_of(np.argwhere(np.isfinite(truth)), layout.affine_of(disc.alignment.level))
        expected.append(np.column_stack([places, truth[np.isfinite(truth)]]))
    np.testing.assert_allclose(in_order(found), in_order(np.vstack(expected)), atol=1e-3)


def test_dcmqi_reads_the_numbers_of_the_report(exam, tmp_path):
    result, _, folder = exam
    run(tool("tid1500reader"), "--inputDICOM", folder / "dicom" / "sr.dcm", "--outputMetadata", tmp_path / "sr.json")
    groups = json.loads((tmp_path / "sr.json").read_text())["Measurements"]
    assert len(groups) == 4 * len(result.mask.found)
    means = {
        (group["ReferencedSegment"], item["quantity"]["CodeValue"], round(float(item["value"]), 4))
        for group in groups
        for item in group["measurementItems"]
        if item.get("derivationModifier", {}).get("CodeMeaning") == "Mean"
    }
    codes = {Quantity.T1RHO: "T1RHO", Quantity.T2: "113065"}
    assert means == {(int(row.level), codes[row.quantity], round(row.mean_ms, 4)) for row in result.measurements}
    volumes = {
        Level(group["ReferencedSegment"]): float(item["value"])
        for group in groups
        for item in group["measurementItems"]
        if item["quantity"]["CodeValue"] == "118565006"
    }
    assert volumes == result.volumes_mm3


def test_dcmqi_reads_the_report_with_outlines(exam, tmp_path):
    result, _, folder = exam
    path = folder / "dicom" / "sr-outlines.dcm"
    run(tool("tid1500reader"), "--inputDICOM", path, "--outputMetadata", tmp_path / "sr.json")
    groups = json.loads((tmp_path / "sr.json").read_text())["Measurements"]
    found = [
        {item["quantity"]["CodeValue"]: float(item["value"]) for item in group["measurementItems"]} for group in groups
    ]
    names = {"T1RHO": Quantity.T1RHO, "113065": Quantity.T2}
    for level, numbers in zip(result.mask.found, found, strict=True):
        assert numbers.pop("118565006") == pytest.approx(result.volumes_mm3[level], abs=0.01)
        rows = [row for row in result.measurements if (row.level, row.region) == (level, Region.WHOLE_DISC)]
        expected = {row.quantity: pytest.approx(row.mean_ms, abs=0.01) for row in rows}
        assert {names[code]: value for code, value in numbers.items()} == expected


def lps_of(indices: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return indices @ affine[:3, :3].T + affine[:3, 3]


def ras_to_lps(points: np.ndarray) -> np.ndarray:
    return points * (-1, -1, 1)


def in_order(points: np.ndarray) -> np.ndarray:
    """Points sorted by coordinates rounded to 0.1 mm, so that two sets can be compared row by row."""
    return points[np.lexsort(np.round(points[:, :3], 1).T)]
