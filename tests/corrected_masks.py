"""Segmentations as persons send them back: the node's own, changed with the tools at hand or as those write them."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import example_exam
import highdicom
import numpy as np
import SimpleITK
from pydicom import Dataset, dcmread
from pydicom.pixels import pack_bits
from pydicom.uid import generate_uid

from config.protocol_cards import load_cards
from dicom_io.corrected_segmentation import exam_grid, read_corrected
from dicom_io.headers import read_facts
from dicom_io.segmentation_writer import segmentation_object
from dicom_io.series import ExamAssembly, assemble_exam
from dicom_io.volume_reader import ExamImages, read_exam
from processing.results import DiscMask, ExamResult, Level

EDITOR = "Reader^Rosa"


def assembly_of(paths: Sequence[Path]) -> ExamAssembly:
    return assemble_exam([one for path in paths for one in read_facts(path)], load_cards(None))


def drawn_discs(shape: tuple[int, ...], levels: Sequence[Level] = tuple(Level)[:5]) -> np.ndarray:
    """Boxes above each other, L5S1 lowest (rows run downwards); off centre, each of its own size."""
    discs = np.zeros(shape, np.uint8)
    height = shape[1] // 6
    for level in levels:
        bottom = shape[1] - 2 - height * (level - 1)
        discs[1 : shape[0] - level % 2, bottom - height + 3 : bottom, 3 + level : shape[2] - 8 + level] = level
    return discs


def result_with(images: ExamImages, discs: np.ndarray) -> ExamResult:
    """A result whose mask are these discs, and nothing else is of this exam."""
    made = example_exam.exam_result()
    grid = images.background.affine
    mask = DiscMask(discs, (discs > 0).astype(np.float32), discs, grid, (), "cfcm-lumbar", "ab" * 32)
    return replace(made, background=images.background, mask=mask, maps={}, registered=(), measurements=())


def write_automatic(paths: Sequence[Path], out: Path, discs: np.ndarray | None = None) -> Path:
    """The node's own segmentation of an exam, and its path."""
    images = read_exam(assembly_of(paths))
    if discs is None:
        discs = drawn_discs(images.background.array.shape)
    segmentation_object(result_with(images, discs), images.source).save_as(out, enforce_file_format=True)
    return out


def edited(dataset: Dataset, *, tool: str = "3D Slicer", editor: str = EDITOR) -> Dataset:
    """As a tool signs what it saves: an object and a series of its own."""
    uid = generate_uid()
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.SeriesInstanceUID = generate_uid()
    dataset.SeriesDescription, dataset.SeriesNumber = "edited by hand", 77
    dataset.Manufacturer, dataset.ManufacturerModelName, dataset.SoftwareVersions = tool, "Segment Editor", "5.8"
    dataset.ContentCreatorName = editor
    return dataset


# --- pixels -----------------------------------------------------------------------------------------------------------


def erased(labels: np.ndarray) -> np.ndarray:
    """The discs with the first column of each taken away."""
    changed = labels.copy()
    for level in np.unique(labels)[1:]:
        columns = np.flatnonzero((labels == level).any(axis=(0, 1)))
        changed[:, :, columns[0]][changed[:, :, columns[0]] == level] = 0
    return changed


def frames_of(dataset: Dataset) -> np.ndarray:
    return dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns).copy()


def first_column(frames: np.ndarray) -> int:
    """The first column that shows a disc."""
    return int(np.flatnonzero(frames.any(axis=(0, 1)))[0])


def put_frames(dataset: Dataset, frames: np.ndarray, groups: Sequence[Dataset]) -> None:
    dataset.PixelData = pack_bits(frames.astype(np.uint8))
    dataset["PixelData"].VR = "OB"
    dataset.NumberOfFrames = len(frames)
    dataset.PerFrameFunctionalGroupsSequence = list(groups)


# --- six ways in which a segmentation comes back ----------------------------------------------------------------------


def with_edited_pixels(automatic: Path, images: Sequence[Path], out: Path) -> None:
    """The same object with other pixels."""
    dataset = edited(dcmread(automatic))
    frames = frames_of(dataset)
    for frame in frames:
        columns = np.flatnonzero(frame.any(axis=0))
        frame[:, columns[:1]] = 0
    put_frames(dataset, frames, dataset.PerFrameFunctionalGroupsSequence)
    dataset.save_as(out)


def in_another_order(automatic: Path, images: Sequence[Path], out: Path) -> None:
    """Frames sorted by segment and then against the slices, those without a voxel left out."""
    dataset = edited(dcmread(automatic))
    frames, groups = frames_of(dataset), dataset.PerFrameFunctionalGroupsSequence
    frames[:, :, : first_column(frames) + 4] = 0
    kept = [index for index in range(len(frames)) if frames[index].any()]
    order = sorted(
        kept,
        key=lambda index: (
            int(groups[index].SegmentIdentificationSequence[0].ReferencedSegmentNumber),
            float(groups[index].PlanePositionSequence[0].ImagePositionPatient[0]),
        ),
    )
    put_frames(dataset, frames[order], [groups[index] for index in order])
    dataset.save_as(out)


def as_label_map(automatic: Path, images: Sequence[Path], out: Path) -> None:
    """One label map instead of a bit for each segment (Supplement 243)."""
    assembly = assembly_of(images)
    before = highdicom.seg.segread(automatic)
    labels = erased(read_corrected(automatic, exam_grid(assembly)).levels)
    dataset = highdicom.seg.Segmentation(
        source_images=[_with_all_types(dcmread(one.path)) for one in assembly.measured[0].grid[0]],
        pixel_array=labels,
        segmentation_type="LABELMAP",
        segment_descriptions=[before.get_segment_description(number) for number in before.segment_numbers],
        series_instance_uid=generate_uid(),
        series_number=77,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="3D Slicer",
        manufacturer_model_name="Segment Editor",
        software_versions="5.8",
        device_serial_number="1",
        content_creator_name=EDITOR,
        content_label="SEGMENTATION",
    )
    dataset.save_as(out, enforce_file_format=True)


def _with_all_types(image: Dataset) -> Dataset:
    """With attributes of type 2 that highdicom copies."""
    for keyword in ("PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"):
        if keyword not in image:
            setattr(image, keyword, None)
    return image


def with_some_discs(automatic: Path, images: Sequence[Path], out: Path) -> None:
    """Only L4L5 and L3L4, with new numbers."""
    dataset = edited(dcmread(automatic), tool="OHIF", editor="")
    frames, groups = frames_of(dataset), dataset.PerFrameFunctionalGroupsSequence
    numbers = [int(one.SegmentIdentificationSequence[0].ReferencedSegmentNumber) for one in groups]
    kept = [index for index, number in enumerate(numbers) if number in (2, 3)]
    dataset.SegmentSequence = dataset.SegmentSequence[1:3]
    for number, segment in enumerate(dataset.SegmentSequence, start=1):
        segment.SegmentNumber = number
    for index in kept:
        groups[index].SegmentIdentificationSequence[0].ReferencedSegmentNumber = numbers[index] - 1
        values = groups[index].FrameContentSequence[0].DimensionIndexValues
        values[0] = numbers[index] - 1
    put_frames(dataset, frames[kept], [groups[index] for index in kept])
    dataset.save_as(out)


def with_other_names(automatic: Path, images: Sequence[Path], out: Path) -> None:
    """As OHIF writes it: 'Tissue' for a code and a label that a person typed; or a code and a label of no use."""
    dataset = edited(dcmread(automatic), tool="OHIF")
    typed = {1: "L5-S1", 2: "l4/5 disc", 3: "disc L3L4"}
    for segment in dataset.SegmentSequence:
        number = int(segment.SegmentNumber)
        del segment.TrackingUID, segment.TrackingID
        if number in typed:
            for name in ("SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence"):
                code = getattr(segment, name)[0]
                code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "T-D0050", "SRT", "Tissue"
            segment.SegmentLabel = typed[number]
        elif number == 4:
            region = Dataset()
            code = segment.SegmentedPropertyTypeCodeSequence[0]
            region.CodeValue, region.CodingSchemeDesignator = code.CodeValue, code.CodingSchemeDesignator
            region.CodeMeaning = code.CodeMeaning
            code.CodeValue, code.CodeMeaning = "360499006", "Intervertebral disc"
            segment.AnatomicRegionSequence = [region]
            segment.SegmentLabel = "Segment 4"
        else:
            segment.SegmentLabel = "Bandscheibe oben"
    frames = frames_of(dataset)
    frames[:, :, first_column(frames) + 6] = 0
    put_frames(dataset, frames, dataset.PerFrameFunctionalGroupsSequence)
    dataset.save_as(out)


def by_slicer(automatic: Path, images: Sequence[Path], out: Path) -> None:
    """Written by the program that 3D Slicer calls (dcmqi), from the labels and the images."""
    assembly = assembly_of(images)
    discs = erased(read_corrected(automatic, exam_grid(assembly)).levels)
    grid = assembly.measured[0].affine
    volume = SimpleITK.GetImageFromArray(discs)
    spacing = np.linalg.norm(grid[:3, :3], axis=0)
    volume.SetSpacing(spacing[::-1].tolist())
    volume.SetOrigin(grid[:3, 3].tolist())
    volume.SetDirection((grid[:3, :3] / spacing)[:, ::-1].ravel().tolist())
    nrrd, described, folder = out.with_suffix(".nrrd"), out.with_suffix(".json"), out.with_suffix(".slices")
    SimpleITK.WriteImage(volume, str(nrrd))
    before = dcmread(automatic, stop_before_pixels=True)
    described.write_text(json.dumps(_slicers_description(before)))
    folder.mkdir()
    for one in assembly.measured[0].grid[0]:
        (folder / one.path.name).write_bytes(one.path.read_bytes())
    command = [
        Path(sys.executable).parent / "itkimage2segimage",
        "--inputDICOMDirectory",
        folder,
        "--inputImageList",
        nrrd,
        "--skip",
        "1",
    ]
    command += ["--inputMetadata", described, "--outputDICOM", out]
    subprocess.run([str(one) for one in command], check=True, capture_output=True, timeout=60)


def _slicers_description(before: Dataset) -> dict[str, object]:
    segments = []
    for one in before.SegmentSequence:
        code, kind = one.SegmentedPropertyTypeCodeSequence[0], one.SegmentedPropertyCategoryCodeSequence[0]
        segments.append(
            {
                "labelID": int(one.SegmentNumber),
                "SegmentLabel": str(one.SegmentLabel),
                "SegmentDescription": "drawn",
                "SegmentAlgorithmType": "MANUAL",
                "SegmentedPropertyTypeCodeSequence": _coded(code),
                "SegmentedPropertyCategoryCodeSequence": _coded(kind),
                "recommendedDisplayRGBValue": [1, 2, 3],
            }
        )
    return {
        "ContentCreatorName": EDITOR,
        "SeriesDescription": "Segmentation",
        "SeriesNumber": "300",
        "InstanceNumber": "1",
        "BodyPartExamined": "LSPINE",
        "segmentAttributes": [segments],
    }


def _coded(code: Dataset) -> dict[str, str]:
    return {name: str(code[name].value) for name in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")}


Variant = Callable[[Path, Sequence[Path], Path], None]

#: Each writes (automatic segmentation, images of the exam, where to).
VARIANTS: dict[str, Variant] = {
    "edited pixels": with_edited_pixels,
    "another order, empty frames left out": in_another_order,
    "label map": as_label_map,
    "some discs": with_some_discs,
    "other names": with_other_names,
    "by Slicer's dcmqi": by_slicer,
}

__all__ = ["EDITOR", "VARIANTS", "assembly_of", "drawn_discs", "edited", "write_automatic"]
