"""The report with outlines: where they lie, what stands beside them."""

import dataclasses
from io import BytesIO

import example_exam
import highdicom
import numpy as np
import pytest
from enhanced_object import enhanced_source
from matplotlib.path import Path as Outline
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedMRImageStorage

from dicom_io.mr_writer import reference_series
from dicom_io.outline_writer import outline, outline_object
from dicom_io.segmentation_writer import segmentation_object
from processing.results import Level, Quantity, Region


def groups_of(report: Dataset) -> list:
    stream = BytesIO()
    report.save_as(stream, enforce_file_format=True)
    stream.seek(0)
    return highdicom.sr.Comprehensive3DSR.from_dataset(dcmread(stream)).content.get_planar_roi_measurement_groups()


def image_of(group: highdicom.sr.PlanarROIMeasurementsAndQualitativeEvaluations) -> Dataset:
    """The reference to the image that an outline is drawn on."""
    return group.roi.ContentSequence[0].ReferencedSOPSequence[0]


def pixels_within(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres a closed outline holds, by another program than the one that drew it."""
    rows, columns = np.indices(shape) + 0.5
    return Outline(points).contains_points(np.column_stack([columns.ravel(), rows.ravel()])).reshape(shape)


@pytest.fixture(scope="module")
def result():
    return example_exam.exam_result()


def test_each_outline_holds_the_pixels_of_its_disc_on_a_slice_of_the_reference_series(result):
    source = example_exam.source_exam(example_exam.OBLIQUE)
    slices = {one.SOPInstanceUID: index for index, one in enumerate(reference_series(result, source))}
    groups = groups_of(outline_object(result, source))
    assert len(groups) == 5
    used = set()
    for level, group in zip(Level, groups, strict=False):
        region = group.roi
        index = slices[image_of(group).ReferencedSOPInstanceUID]
        used.add(index)
        assert region.graphic_type == highdicom.sr.GraphicTypeValues.POLYLINE
        assert (region.value[0] == region.value[-1]).all()
        found = pixels_within(region.value, example_exam.SHAPE[1:])
        np.testing.assert_array_equal(found, result.mask.levels[index] == level)
    assert len(used) == 1  # all discs are on every inner slice


def test_a_disc_that_the_common_slice_does_not_show_is_outlined_where_it_is_largest(result):
    levels = result.mask.levels.copy()
    outer = levels[3] == Level.L1L2
    levels[levels == Level.L1L2] = 0
    levels[0][outer] = Level.L1L2
    changed = dataclasses.replace(result, mask=dataclasses.replace(result.mask, levels=levels))
    source = example_exam.source_exam()
    slices = {one.SOPInstanceUID: index for index, one in enumerate(reference_series(changed, source))}
    groups = groups_of(outline_object(changed, source))
    places = [slices[image_of(group).ReferencedSOPInstanceUID] for group in groups]
    assert places[-1] == 0
    assert set(places[:-1]) == {places[0]} != {0}


def test_beside_an_outline_stand_the_means_and_the_volume_of_the_whole_disc(result):
    groups = groups_of(outline_object(result, example_exam.source_exam()))
    for level, group in zip(Level, groups, strict=False):
        found = {one.name.value: one.value for one in group.get_measurements()}
        rows = {
            row.quantity: row.mean_ms
            for row in result.measurements
            if (row.level, row.region) == (level, Region.WHOLE_DISC)
        }
        assert found == pytest.approx(
            {"T1RHO": rows[Quantity.T1RHO], "113065": rows[Quantity.T2], "118565006": result.volumes_mm3[level]},
            abs=1e-6,
        )


def test_the_title_is_the_one_that_ohif_draws_and_tracking_is_that_of_the_segments(result):
    source = example_exam.source_exam()
    report = outline_object(result, source)
    assert report.ConceptNameCodeSequence[0].CodeValue == "126000"
    tracked = [group.tracking_uid for group in groups_of(report)]
    assert tracked == [one.TrackingUID for one in segmentation_object(result, source).SegmentSequence]


def test_an_exam_without_echoes_has_volumes_only(result):
    result = example_exam.exam_result(with_maps=False)
    for group in groups_of(outline_object(result, example_exam.source_exam())):
        assert [one.name.value for one in group.get_measurements()] == ["118565006"]


def test_on_frames_of_enhanced_mr_an_outline_names_object_and_frame(result, tmp_path):
    classic = example_exam.source_exam()
    anatomy = dataclasses.replace(classic, all_instances=classic.grid_instances)
    source = enhanced_source(anatomy, [tmp_path / "one"])
    for group in groups_of(outline_object(result, source)):
        image = image_of(group)
        assert image.ReferencedSOPClassUID == EnhancedMRImageStorage
        assert image.ReferencedSOPInstanceUID == source.grid_instances[0].SOPInstanceUID
        assert (result.mask.levels[image.ReferencedFrameNumber - 1] > 0).any()


def test_of_several_parts_the_largest_is_outlined():
    inside = np.zeros((9, 12), bool)
    inside[1, 1] = inside[4:8, 3:10] = True
    expected = inside.copy()
    expected[1, 1] = False
    np.testing.assert_array_equal(pixels_within(outline(inside), inside.shape), expected)


def test_a_result_without_a_disc_has_no_outlines():
    with pytest.raises(ValueError, match="without a disc"):
        outline_object(example_exam.exam_result(()), example_exam.source_exam())
