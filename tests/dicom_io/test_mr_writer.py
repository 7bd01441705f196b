"""Derived MR series: what is stored, where it lies, what it was made of; also of odd headers."""

import dataclasses
from io import BytesIO

import example_exam
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from config.protocol_cards import load_cards
from dicom_io.headers import read_facts
from dicom_io.mr_writer import reference_series, scaled_map_series
from dicom_io.reference_images import needs_reference
from dicom_io.series import AssemblyState, assemble_exam
from dicom_io.source_attributes import PATIENT_STUDY_KEYWORDS
from processing.results import ImageVolume, Quantity


def stored(dataset: Dataset) -> Dataset:
    """The object as another program reads it."""
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    stream.seek(0)
    return dcmread(stream)


@pytest.fixture(scope="module")
def result():
    return example_exam.exam_result()


@pytest.fixture(scope="module")
def source():
    return example_exam.source_exam(example_exam.OBLIQUE)


@pytest.fixture(scope="module")
def series(result, source):
    return {
        "reference": [stored(one) for one in reference_series(result, source)],
        **{one.value: [stored(image) for image in scaled_map_series(result, source, one)] for one in Quantity},
    }


def pixels(images: list[Dataset]) -> np.ndarray:
    return np.stack([one.pixel_array for one in images])


@pytest.mark.parametrize("name", ["reference", "T1rho", "T2"])
def test_there_is_one_image_per_slice_where_the_slice_lies(series, source, name):
    images = series[name]
    assert [one.InstanceNumber for one in images] == list(range(1, example_exam.SHAPE[0] + 1))
    for index, (image, here) in enumerate(zip(images, source.grid_instances, strict=True)):
        np.testing.assert_allclose(
            np.array(image.ImagePositionPatient, float), (source.affine @ (index, 0, 0, 1))[:3], atol=1e-6
        )
        assert image.ImageOrientationPatient == here.ImageOrientationPatient
        assert list(image.PixelSpacing) == list(example_exam.SPACING_MM[1:])
        assert image.SpacingBetweenSlices == example_exam.SPACING_MM[0]
        assert image.FrameOfReferenceUID == here.FrameOfReferenceUID
        assert list(image.ImageType)[:2] == ["DERIVED", "SECONDARY"]
        assert image.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert image.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
        for keyword in PATIENT_STUDY_KEYWORDS:
            assert image.get(keyword) == here.get(keyword)
    assert len({one.SeriesInstanceUID for one in images}) == 1
    assert len({one.SOPInstanceUID for one in images}) == len(images)


@pytest.mark.parametrize("quantity", list(Quantity))
def test_a_scaled_map_holds_tenths_of_a_millisecond_and_says_so(series, result, quantity):
    images = series[quantity.value]
    truth = np.nan_to_num(result.maps[quantity].time_ms)
    for image in images:
        (mapping,) = image.RealWorldValueMappingSequence
        assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (0.1, 0.0)
        assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "ms"
        assert "RescaleSlope" not in image
        assert (image.WindowCenter, image.WindowWidth) == (900, 1400)
    np.testing.assert_allclose(pixels(images) * mapping.RealWorldValueSlope, truth, atol=0.05001)
    assert pixels(images).dtype == np.uint16
    np.testing.assert_array_equal(pixels(images) == 0, truth == 0)


def test_a_scaled_map_names_the_images_of_its_slice_and_no_other(series, source):
    for index, image in enumerate(series["T2"]):
        named = {str(one.ReferencedSOPInstanceUID) for one in image.SourceImageSequence}
        assert named == {
            str(one.SOPInstanceUID)
            for one in source.all_instances
            if one.ImagePositionPatient == source.grid_instances[index].ImagePositionPatient
        }
        (of_series,) = image.ReferencedSeriesSequence
        assert {str(one.ReferencedSOPInstanceUID) for one in of_series.ReferencedInstanceSequence} == named


def test_a_reference_image_is_the_segmented_one_and_names_it(series, source, result):
    for image, here in zip(series["reference"], source.grid_instances, strict=True):
        (named,) = image.SourceImageSequence
        assert named.ReferencedSOPInstanceUID == here.SOPInstanceUID
        assert (image.EchoTime, image.RepetitionTime) == (here.EchoTime, here.RepetitionTime)
    found, truth = pixels(series["reference"]).astype(float), result.background.array
    np.testing.assert_allclose(found, truth * (4095 / truth.max()), atol=0.51)


def test_whole_numbers_are_kept_as_they_are(result, source):
    signal = np.random.default_rng(3).integers(0, 4096, example_exam.SHAPE).astype(np.float32)
    changed = dataclasses.replace(result, background=ImageVolume(signal, result.background.affine))
    np.testing.assert_array_equal(pixels([stored(one) for one in reference_series(changed, source)]), signal)


@pytest.mark.parametrize("signal", [-7.5, 0.0, 2.5e6, float("nan")])
def test_signals_of_any_scale_are_stored(result, source, signal):
    array = np.full(example_exam.SHAPE, signal, np.float32)
    array[3, 40, 30] = 10.5
    changed = dataclasses.replace(result, background=ImageVolume(array, result.background.affine))
    found = pixels([stored(one) for one in reference_series(changed, source)])
    brighter = found[3, 40, 30] > found[3, 41, 30]
    assert brighter == (not signal > 10.5)
    assert found.max() == 4095


def test_values_too_large_for_the_scale_stay_the_largest(result, source):
    fitted = result.maps[Quantity.T2]
    huge = dataclasses.replace(fitted, time_ms=np.where(np.isfinite(fitted.time_ms), np.float32(9000), fitted.time_ms))
    changed = dataclasses.replace(result, maps={Quantity.T2: huge})
    assert pixels([stored(one) for one in scaled_map_series(changed, source, Quantity.T2)]).max() == 65535


def test_odd_values_of_the_acquisition_neither_stop_the_writer_nor_are_repaired(result):
    source = example_exam.source_exam()
    odd = {"RepetitionTime": b"5,2 ", "EchoTime": b"abc ", "ScanningSequence": b"gr\\XX", "FlipAngle": b"60 deg"}
    for image in source.grid_instances:
        for keyword, value in odd.items():
            tag = Tag(keyword)
            image[keyword] = RawDataElement(tag, None, len(value), value, 0, True, True)
        del image.SequenceVariant, image.PatientPosition, image.MRAcquisitionType
    (first, *_) = (stored(one) for one in reference_series(result, source))
    for keyword, value in odd.items():
        assert first.get_item(keyword).value.strip() == value.strip()
    assert (first.SequenceVariant, first.PatientPosition, first.MRAcquisitionType) == ("NONE", "", "")


def test_only_an_exam_with_several_images_per_slice_gets_a_reference_series(source):
    assert needs_reference(source)
    assert not needs_reference(dataclasses.replace(source, all_instances=source.grid_instances))


def test_two_scans_whose_slices_are_rounded_otherwise_are_sorted_to_the_nearest(result, source):
    other = example_exam.source_exam(example_exam.OBLIQUE)
    for image in other.all_instances:
        image.SOPInstanceUID += ".7"
        image.ImagePositionPatient = [f"{float(mm) + 0.03:.4f}" for mm in image.ImagePositionPatient]
    both = dataclasses.replace(source, all_instances=(*source.all_instances, *other.all_instances))
    counts = [len(one.SourceImageSequence) for one in scaled_map_series(result, both, Quantity.T1RHO)]
    assert counts == [14] * example_exam.SHAPE[0]


def test_a_lossy_source_is_told_of(result, source):
    lossy = example_exam.source_exam()
    for image in lossy.grid_instances:
        image.LossyImageCompression, image.LossyImageCompressionRatio = "01", "10"
        image.LossyImageCompressionMethod = "ISO_10918_1"
    (image, *_) = (stored(one) for one in reference_series(result, lossy))
    assert (image.LossyImageCompression, image.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    assert "LossyImageCompression" not in stored(next(iter(reference_series(result, source))))


def test_the_contributors_are_the_scanner_and_the_node_with_its_state(series):
    items = {
        one.PurposeOfReferenceCodeSequence[0].CodeValue: one for one in series["T2"][0].ContributingEquipmentSequence
    }
    assert (items["109101"].ManufacturerModelName, items["109101"].StationName) == ("DISCOVERY MR750w", "MR3")
    text = items["109102"].ContributionDescription
    for telling in ("Research use only", "discnode=0.1.0", "model_sha256=" + "ab" * 32, "settings_digest=0123456789"):
        assert telling in text
    assert "protocol=ge-mapss" in text


def test_what_comes_back_from_an_archive_is_no_new_exam(series, tmp_path):
    paths = []
    for name, images in series.items():
        for number, image in enumerate(images):
            paths.append(tmp_path / f"{name}-{number}.dcm")
            image.save_as(paths[-1], enforce_file_format=True)
    assembly = assemble_exam([one for path in paths for one in read_facts(path)], load_cards(None))
    assert assembly.state is AssemblyState.UNKNOWN
    assert len(assembly.reasons) == len(series)
    assert all("holds no acquired magnitude image" in reason.detail for reason in assembly.reasons)
