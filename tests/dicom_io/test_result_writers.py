"""DICOM outputs: what they hold, that they keep the source's identity, and that writing twice gives the same bytes."""

import copy
import dataclasses
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO

import example_exam
import highdicom
import numpy as np
import pytest
from enhanced_object import enhanced_source
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage
from scipy.ndimage import center_of_mass

from config.settings import ObjectKind
from dicom_io.map_writer import map_object
from dicom_io.mr_writer import reference_series
from dicom_io.overlay_writer import overlay_object
from dicom_io.report_writer import report_object
from dicom_io.result_objects import write_objects
from dicom_io.segmentation_writer import segmentation_object
from dicom_io.source_attributes import PATIENT_STUDY_KEYWORDS
from dicom_io.sources import SourceExam
from processing.display import LEVEL_COLOURS
from processing.refusal import Reason, ReasonCode
from processing.results import ExamResult, Level, Quantity, Region

PICTURE = np.random.default_rng(1).integers(0, 256, (50, 70, 3), np.uint8)


@pytest.fixture(scope="module")
def result() -> ExamResult:
    return example_exam.exam_result()


@pytest.fixture(scope="module")
def two_discs() -> ExamResult:
    """For what does not depend on how many discs there are."""
    return example_exam.exam_result((Level.L4L5, Level.L2L3))


@pytest.fixture(scope="module")
def source() -> SourceExam:
    return example_exam.source_exam()


@pytest.fixture(scope="module")
def objects(result, source) -> dict[str, Dataset]:
    segmentation = segmentation_object(result, source)
    return {
        "seg": segmentation,
        "T1rho": map_object(result, source, Quantity.T1RHO),
        "T2": map_object(result, source, Quantity.T2),
        "sr": report_object(result, source, segmentation),
        "overlay": overlay_object(result, source, PICTURE),
        **{f"reference-{one.InstanceNumber}": one for one in reference_series(result, source)},
    }


def instances_of(series: Dataset) -> set[str]:
    return {str(one.ReferencedSOPInstanceUID) for one in series.ReferencedInstanceSequence}


def reference_uids(objects: dict[str, Dataset]) -> set[str]:
    return {str(one.SOPInstanceUID) for name, one in objects.items() if name.startswith("reference-")}


def stored(dataset: Dataset) -> Dataset:
    """The object as another program reads it."""
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    stream.seek(0)
    return dcmread(stream)


# ---- identity and reproducibility


@pytest.fixture(scope="module")
def written(result, source, tmp_path_factory):
    """(written objects, {path: object as read}, the folder) of the exam."""
    folder = tmp_path_factory.mktemp("written")
    found = write_objects(result, source, PICTURE, folder)
    return found, {one.path: dcmread(folder / one.path) for one in found}, folder


def test_writing_twice_gives_the_same_bytes(written, tmp_path):
    first, _, folder = written
    second = write_objects(example_exam.exam_result(), example_exam.source_exam(), PICTURE, tmp_path)
    n_images = 3 * example_exam.SHAPE[0] + 2  # reference, T1rho, T2, and two slices of the atlas
    assert Counter(one.kind for one in first) == {
        **{ObjectKind.SEG: 1, ObjectKind.PMAP: 12, ObjectKind.MR: n_images, ObjectKind.SR: 2, ObjectKind.OVERLAY: 1},
        ObjectKind.DEFORMATION: 5,
    }
    for one, two in zip(first, second, strict=True):
        assert one == two
        assert (folder / one.path).read_bytes() == (tmp_path / two.path).read_bytes()


def test_every_object_is_a_series_of_its_own_and_numbers_and_names_tell_them_apart(written):
    """Of derived MR images each series."""
    objects = written[1].values()
    assert len({one.SOPInstanceUID for one in objects}) == len(objects)
    series = {one.SeriesInstanceUID: (one.SeriesNumber, one.SeriesDescription) for one in objects}
    n_mr = len([one for one in objects if one.SOPClassUID == MRImageStorage])
    assert len(series) == len(objects) - n_mr + 4  # reference, atlas, T1rho, T2
    assert len({number for number, _ in series.values()}) == len(series)
    assert len({text for _, text in series.values()}) == len(series)
    assert max(len(text) for _, text in series.values()) <= 64


def test_patient_study_and_trial_equal_the_source(objects, source):
    header = source.grid_instances[0]
    for name, made in objects.items():
        read = stored(made)
        for keyword in PATIENT_STUDY_KEYWORDS:
            assert read.get(keyword) == header.get(keyword), (name, keyword)
        assert read.ClinicalTrialCoordinatingCenterName == "Core lab"
        assert read.SpecificCharacterSet == "ISO_IR 100"


def test_the_keywords_of_the_patient_and_study_modules_exist():
    assert [keyword for keyword in PATIENT_STUDY_KEYWORDS if tag_for_keyword(keyword) is None] == []
    assert len(set(PATIENT_STUDY_KEYWORDS)) == len(PATIENT_STUDY_KEYWORDS)


@pytest.mark.parametrize("implicit", [False, True])
def test_odd_patient_values_are_carried_over_as_they_stand(two_discs, implicit):
    """Real headers break rules: they must come out as they went in, not stop the writer or be repaired."""
    odd = {
        **{"PatientSex": b"X ", "PatientBirthDate": b"1979", "PatientAge": b"46", "PatientWeight": b"61,5"},
        **{"StudyTime": b"8:30", "StudyID": b"A" * 30},
    }
    instances = []
    for image in example_exam.source_exam().grid_instances:
        image.PatientName = ""
        del image.AccessionNumber
        for keyword, value in odd.items():
            tag = Tag(tag_for_keyword(keyword))
            image[keyword] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, implicit, True)
        image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        image.set_original_encoding(implicit, True, ["latin_1"])
        instances.append(stored(image))
    source = SourceExam(tuple(instances), tuple(instances), example_exam.affine())
    segmentation = segmentation_object(two_discs, source)
    for made in (
        segmentation,
        report_object(two_discs, source, segmentation),
        overlay_object(two_discs, source, PICTURE),
    ):
        read = stored(made)
        for keyword, value in odd.items():
            assert read.get_item(keyword).value.rstrip() == value.rstrip(), keyword
        assert (read.PatientName, read.AccessionNumber) == ("", "")


def test_a_scanner_with_odd_names_is_told_of_as_it_names_itself(two_discs):
    odd = {"Manufacturer": "M\xfcller ".encode("latin-1") * 12, "StationName": b"A" * 40, "SoftwareVersions": b"1" * 70}
    instances = []
    for image in example_exam.source_exam().grid_instances:
        for keyword, value in odd.items():
            tag = Tag(tag_for_keyword(keyword))
            image[keyword] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)
        image.set_original_encoding(False, True, ["latin_1"])
        instances.append(stored(image))
    source = SourceExam(tuple(instances), tuple(instances), example_exam.affine())
    segmentation = segmentation_object(two_discs, source)
    made = (segmentation, map_object(two_discs, source, Quantity.T2), report_object(two_discs, source, segmentation))
    for one in (*made, overlay_object(two_discs, source, PICTURE), next(reference_series(two_discs, source))):
        scanner = stored(one).ContributingEquipmentSequence[0]
        for keyword, value in odd.items():
            assert scanner.get_item(keyword).value.strip() == value.strip()


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (None, "Smith^Ann"),
        ("ISO_IR 192", "Ιωάννου^Μαρία"),
        ("ISO_IR 144", "Люкceмбypг^Роза"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ],
)
def test_names_survive_in_every_character_set(two_discs, character_set, name):
    instances = []
    for image in example_exam.source_exam().grid_instances:
        image.ReferringPhysicianName = ""
        image.PatientName = name
        image.SpecificCharacterSet = character_set
        if character_set is None:
            del image.SpecificCharacterSet
        instances.append(stored(image))
    source = SourceExam(tuple(instances), tuple(instances), example_exam.affine())
    reasons = (Reason(ReasonCode.MOTION, "T1ρ echoes 1–2: 3 ± 1 mm, 2 × 2"),)
    changed = dataclasses.replace(two_discs, reasons=reasons)
    segmentation = segmentation_object(changed, source)
    for made in (segmentation, report_object(changed, source, segmentation), overlay_object(changed, source, PICTURE)):
        read = stored(made)
        assert read.get_item("PatientName").value == instances[1].get_item("PatientName").value  # bytes
        assert str(read.PatientName) == name
        assert read.get("SpecificCharacterSet") == instances[0].get("SpecificCharacterSet")


def test_times_stand_in_the_time_zone_of_the_source(result):
    source = example_exam.source_exam()
    for image in source.grid_instances:
        image.TimezoneOffsetFromUTC = "-0730"
    made = segmentation_object(result, source)
    assert made.TimezoneOffsetFromUTC == "-0730"
    for stem in ("InstanceCreation", "Series", "Content"):
        assert made[f"{stem}Date"].value.isoformat() == "2026-03-14"
        assert made[f"{stem}Time"].value.isoformat() == "01:56:53.589793"


def test_times_are_those_of_the_result_not_of_the_clock(objects):
    for made in objects.values():
        assert (str(made.ContentDate), str(made.ContentTime)) == ("20260314", "092653.589793")


def test_every_object_says_research_use_only(objects):
    for made in objects.values():
        assert "Research use only" in made.SeriesDescription
        assert len(made.SeriesDescription) <= 64
    assert "Research use only" in objects["seg"].ContentDescription
    assert objects["T2"].ContentQualification == "RESEARCH"
    assert objects["overlay"].ImageComments == "Research use only"


def test_every_image_output_names_the_lumbar_spine_and_no_side(objects):
    for name in ("seg", "T1rho", "T2", "overlay"):
        assert objects[name].BodyPartExamined == "LSPINE"
        assert "Laterality" not in objects[name]


def test_every_object_names_scanner_node_and_what_decided_the_numbers(objects):
    for name, made in objects.items():
        items = {one.PurposeOfReferenceCodeSequence[0].CodeValue: one for one in made.ContributingEquipmentSequence}
        assert items["109101"].ManufacturerModelName == "DISCOVERY MR750w", name
        node = items["109102"]
        assert (node.Manufacturer, node.SoftwareVersions) == ("discnode", "0.1.0")
        assert str(node.ContributionDateTime).startswith("20260314092653")
        for key in ("model_sha256", "settings_digest", "protocol", "atlas_sha256"):
            assert f"{key}={example_exam.exam_result().versions[key]}" in node.ContributionDescription, name


def test_what_decided_the_numbers_fits_a_short_text_the_most_telling_first(result, source):
    versions = result.versions | {f"package{number}": "1.2.3" * 20 for number in range(20)}
    made = overlay_object(dataclasses.replace(result, versions=versions), source, PICTURE)
    text = made.ContributingEquipmentSequence[-1].ContributionDescription
    assert 900 < len(text) <= 1024
    assert "model_sha256=" + "ab" * 32 in text


@pytest.mark.parametrize(
    ("kinds", "names"),
    [
        (["seg"], {"seg", "reference"}),
        (["pmap"], {"pmap", "reference", "atlas"}),
        (["sr"], {"sr", "seg", "reference"}),
        (["overlay", "pdf"], {"overlay"}),
        (["mr"], {"reference", "atlas", "mr"}),
        (["deformation"], {"deformation", "atlas"}),
        ([], set()),
    ],
)
def test_what_is_referred_to_goes_where_the_referring_object_goes(written, source, kinds, names):
    sent = [one for one in written[0] if one.goes_with([ObjectKind(kind) for kind in kinds])]
    stems = {one.path.stem.rsplit("-", 1)[0] if one.kind is ObjectKind.MR else one.kind.value for one in sent}
    assert {"mr" if stem.startswith("mr-") else stem for stem in stems} == names
    if "seg" in names or "pmap" in names:
        ours = {str(one.SOPInstanceUID) for one in (written[1][each.path] for each in sent)}
        known = ours | set(source.sop_instance_uids)
        for one in sent:
            for keyword, item in every_item(written[1][one.path]):
                if keyword in ("ReferencedInstanceSequence", "SourceImageSequence", "ReferencedSOPSequence"):
                    assert item.ReferencedSOPInstanceUID in known


def test_a_disc_is_followed_through_visits_but_not_into_another_patient(result, source):
    def tracking(exam: SourceExam) -> dict[str, str]:
        return {one.SegmentLabel: one.TrackingUID for one in segmentation_object(result, exam).SegmentSequence}

    other_visit, other_patient, anonymous, anonymous_too = (example_exam.source_exam() for _ in range(4))
    for exam, study, patient in (
        (other_visit, "1.2.9", "P-0815"),
        (other_patient, "1.2.9", "P-0816"),
        (anonymous, "1.2.8", ""),
        (anonymous_too, "1.2.9", ""),
    ):
        for image in exam.all_instances:
            image.StudyInstanceUID, image.PatientID = study, patient
    assert tracking(source) == tracking(other_visit)
    sets = [set(tracking(exam).values()) for exam in (source, other_patient, anonymous, anonymous_too)]
    assert len(set.union(*sets)) == 20


# ---- segmentation


def test_segments_hold_the_discs_in_their_place(objects, result):
    read = highdicom.seg.Segmentation.from_dataset(stored(objects["seg"]))
    volume = read.get_volume(combine_segments=True, relabel=False)
    assert [segment.SegmentLabel for segment in read.SegmentSequence] == [
        *("L5/S1 disc", "L4/L5 disc", "L3/L4 disc", "L2/L3 disc", "L1/L2 disc")
    ]
    for level in Level:
        inside = result.mask.levels == level
        assert (volume.array == level).sum() == inside.sum()
        if inside.any():
            truth = example_exam.affine() @ [*center_of_mass(inside), 1]
            np.testing.assert_allclose(volume.affine @ [*center_of_mass(volume.array == level), 1], truth, atol=1e-9)


def test_segments_are_numbered_without_gaps_when_a_level_is_missing(source):
    result = example_exam.exam_result((Level.L4L5, Level.L2L3))
    read = highdicom.seg.Segmentation.from_dataset(stored(segmentation_object(result, source)))
    assert [(one.SegmentNumber, one.SegmentLabel) for one in read.SegmentSequence] == [
        (1, "L4/L5 disc"),
        (2, "L2/L3 disc"),
    ]
    sizes = [int((read.get_volume(combine_segments=True, relabel=False).array == number).sum()) for number in (1, 2)]
    assert sizes == [int((result.mask.levels == level).sum()) for level in (Level.L4L5, Level.L2L3)]


def test_segments_have_colour_algorithm_and_source_images(objects, source):
    made = objects["seg"]
    for segment, level in zip(made.SegmentSequence, Level, strict=False):
        colour = highdicom.color.CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue)
        np.testing.assert_allclose(colour.to_rgb(), LEVEL_COLOURS[level], atol=1)
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "cfcm-lumbar"
    grid = {str(image.SOPInstanceUID) for image in source.grid_instances}
    shown_on, made_from = made.ReferencedSeriesSequence
    assert instances_of(made_from) == grid
    assert instances_of(shown_on) == reference_uids(objects)


def test_a_result_without_a_disc_has_no_segmentation(source):
    result = example_exam.exam_result(())
    with pytest.raises(ValueError, match="without a disc"):
        segmentation_object(result, source)


# ---- maps


@pytest.mark.parametrize("quantity", list(Quantity))
def test_map_frames_ascend_along_the_normal_and_hold_milliseconds(objects, result, quantity):
    """dcmqi and OHIF take frame k for slice k along row direction x column direction."""
    read = stored(objects[quantity.value])
    groups = read.PerFrameFunctionalGroupsSequence
    positions = np.array([group.PlanePositionSequence[0].ImagePositionPatient for group in groups], float)
    grid = example_exam.affine()
    np.testing.assert_allclose(positions, [grid[:3, 3] + k * grid[:3, 0] for k in range(len(groups))], atol=1e-9)
    assert [group.FrameContentSequence[0].DimensionIndexValues for group in groups] == list(range(1, len(groups) + 1))
    truth = np.nan_to_num(result.maps[quantity].time_ms, nan=0.0)
    np.testing.assert_array_equal(read.pixel_array, truth)
    assert np.isfinite(read.pixel_array).all()
    for k, group in enumerate(groups):
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        assert image.ReferencedSOPInstanceUID == objects[f"reference-{k + 1}"].SOPInstanceUID


def test_map_says_what_it_holds_and_in_which_unit(objects):
    for name, code in (("T1rho", ("T1RHO", "99DISCNODE")), ("T2", ("113065", "DCM"))):
        made = objects[name]
        mapping = made.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
        assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1.0, 0.0)
        assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "ms"
        concept = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
        assert (concept.CodeValue, concept.CodingSchemeDesignator) == code
        assert (made.Modality, made.BitsAllocated) == ("MR", 32)
    assert objects["T1rho"].CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99DISCNODE"
    anatomy = objects["T2"].SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0]
    assert (anatomy.FrameLaterality, anatomy.AnatomicRegionSequence[0].CodeValue) == ("U", "122496007")


def test_map_refers_to_every_image_it_was_fitted_to(objects, source):
    shown_on, fitted_to = objects["T1rho"].ReferencedSeriesSequence
    assert instances_of(fitted_to) == set(source.sop_instance_uids)
    assert instances_of(shown_on) == reference_uids(objects)


def test_an_oblique_map_lies_where_the_source_lies(result):
    source = example_exam.source_exam(example_exam.OBLIQUE)
    volume = highdicom.pm.ParametricMap.from_dataset(stored(map_object(result, source, Quantity.T2))).get_volume()
    weights = np.nan_to_num(result.maps[Quantity.T2].time_ms, nan=0.0)
    truth = source.affine @ [*center_of_mass(weights), 1]
    np.testing.assert_allclose(volume.affine @ [*center_of_mass(volume.array), 1], truth, atol=1e-4)


@pytest.mark.parametrize("thickness", [None, "", "absent"])
def test_a_source_without_slice_thickness_gives_objects_all_the_same(two_discs, thickness, tmp_path):
    source = example_exam.source_exam()
    for image in source.all_instances:
        if thickness == "absent":
            del image.SliceThickness
        else:
            image.SliceThickness = thickness
    write_objects(two_discs, source, PICTURE, tmp_path)
    for name in ("seg", "t1rho"):
        shared = dcmread(tmp_path / "dicom" / f"{name}.dcm").SharedFunctionalGroupsSequence[0]
        assert shared.PixelMeasuresSequence[0].SliceThickness == example_exam.SPACING_MM[0]


def test_orientations_rounded_differently_in_each_image_give_objects_all_the_same(two_discs, tmp_path):
    source = example_exam.source_exam(example_exam.OBLIQUE)
    for index, image in enumerate(source.all_instances):
        decimals = 6 + index % 3
        image.ImageOrientationPatient = [f"{cosine:.{decimals}f}" for cosine in image.ImageOrientationPatient]
    write_objects(two_discs, source, PICTURE, tmp_path)
    shared = dcmread(tmp_path / "dicom" / "seg.dcm").SharedFunctionalGroupsSequence[0]
    found = [float(cosine) for cosine in shared.PlaneOrientationSequence[0].ImageOrientationPatient]
    np.testing.assert_allclose(found[:3], source.affine[:3, 2] / example_exam.SPACING_MM[2], atol=1e-5)


# ---- report


def measured(report: Dataset) -> dict[tuple[str, str, str], float]:
    """(tracking identifier, concept, derivation) -> value, of every number in a report."""
    read = highdicom.sr.Comprehensive3DSR.from_dataset(report)
    numbers = {}
    for group in read.content.get_volumetric_roi_measurement_groups():
        for one in group.get_measurements():
            key = (group.tracking_identifier, one.name.value, one.derivation.meaning if one.derivation else "")
            assert key not in numbers
            numbers[key] = one.value
    return numbers


def test_report_holds_every_number_of_the_result(objects, result):
    numbers = measured(stored(objects["sr"]))
    expected = {}
    for row in result.measurements:
        name = {Level.L5S1: "L5/S1", Level.L4L5: "L4/L5", Level.L3L4: "L3/L4", Level.L2L3: "L2/L3"}.get(
            row.level, "L1/L2"
        )
        label = (
            f"{name} disc" if row.region is Region.WHOLE_DISC else f"{name} disc, {row.region.value.replace('_', ' ')}"
        )
        code = "T1RHO" if row.quantity is Quantity.T1RHO else "113065"
        counts = "T1RHO" if row.quantity is Quantity.T1RHO else "T2"
        expected |= {
            (label, code, "Mean"): row.mean_ms,
            (label, code, "Standard Deviation"): row.sd_ms,
            (label, code, "Median"): row.median_ms,
            (label, f"{counts}_USED", ""): row.n,
            (label, f"{counts}_EXCLUDED", ""): row.n_excluded,
        }
        if row.region is Region.WHOLE_DISC:
            expected[label, "118565006", ""] = result.volumes_mm3[row.level]
    assert numbers.keys() == expected.keys()
    for key, value in expected.items():
        assert numbers[key] == pytest.approx(value, abs=5e-7), key


def test_report_refers_to_the_segments_and_to_all_images(objects, source):
    read = highdicom.sr.Comprehensive3DSR.from_dataset(stored(objects["sr"]))
    groups = read.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 20
    for group in groups:
        segment = objects["seg"].SegmentSequence[group.referenced_segment.referenced_segment_numbers[0] - 1]
        assert group.tracking_identifier.startswith(segment.SegmentLabel)
        assert group.referenced_segment.referenced_sop_instance_uid == objects["seg"].SOPInstanceUID
    evidence = {str(uid) for _, _, uid, _ in read.get_evidence()}
    assert evidence == {*source.sop_instance_uids, str(objects["seg"].SOPInstanceUID)}


def test_report_says_research_use_the_verdict_and_what_is_in_doubt(objects):
    items = objects["sr"].ContentSequence
    texts = [item.TextValue for item in items if item.ConceptNameCodeSequence[0].CodeValue == "121106"]
    assert texts[0].startswith("Research use only")
    assert "needs_review" in texts[1]
    assert texts[2].startswith("REGISTRATION_POOR: L1/L2")


def test_report_leaves_out_statistics_of_no_voxels_but_not_the_count(result, source):
    nan = float("nan")
    empty = dataclasses.replace(result.measurements[0], mean_ms=nan, sd_ms=nan, median_ms=nan, n=0, n_excluded=380)
    changed = dataclasses.replace(result, measurements=(empty,))
    numbers = measured(stored(report_object(changed, source, segmentation_object(changed, source))))
    of_disc = {key[1:]: value for key, value in numbers.items() if key[0] == "L5/S1 disc"}
    assert of_disc == {("118565006", ""): 2850.0, ("T1RHO_USED", ""): 0, ("T1RHO_EXCLUDED", ""): 380}


def test_an_exam_without_echoes_gives_segmentation_volumes_and_overview(source, tmp_path):
    result = example_exam.exam_result(with_maps=False)
    of_anatomy = dataclasses.replace(source, all_instances=source.grid_instances)
    written = write_objects(result, of_anatomy, PICTURE, tmp_path)
    assert [one.kind.value for one in written] == ["seg", "sr", "sr", "overlay"]
    (shown_on,) = dcmread(tmp_path / "dicom" / "seg.dcm").ReferencedSeriesSequence
    assert instances_of(shown_on) == {str(one.SOPInstanceUID) for one in source.grid_instances}
    numbers = measured(dcmread(tmp_path / "dicom" / "sr.dcm"))
    assert sorted(numbers.values()) == sorted(result.volumes_mm3.values())


# ---- overview


def test_overlay_holds_the_picture(objects):
    read = stored(objects["overlay"])
    np.testing.assert_array_equal(read.pixel_array, PICTURE)
    assert (read.BurnedInAnnotation, list(read.PatientOrientation)) == ("NO", ["P", "F"])


def test_a_retry_later_keeps_uids(result, source, objects):
    later = dataclasses.replace(result, produced_at=result.produced_at + timedelta(hours=5))
    assert segmentation_object(later, source).SOPInstanceUID == objects["seg"].SOPInstanceUID


def test_other_weights_or_settings_make_other_objects(result, source, objects):
    for key in ("model_sha256", "settings_digest", "discnode", "protocol", "inference_provider"):
        other = dataclasses.replace(result, versions={**result.versions, key: "other"})
        assert overlay_object(other, source, PICTURE).SOPInstanceUID != objects["overlay"].SOPInstanceUID


# ---- sources of many frames


def every_item(dataset: Dataset) -> Iterator[tuple[str, Dataset]]:
    """(keyword of its sequence, item) of all sequence items, however deep."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield element.keyword, item
                yield from every_item(item)


@pytest.fixture(scope="module", params=["several images per slice", "one image per slice"])
def enhanced(request, two_discs, tmp_path_factory):
    """(source, objects) of the exam as it comes in two Enhanced MR objects."""
    folder = tmp_path_factory.mktemp("enhanced")
    classic = example_exam.source_exam()
    if request.param == "one image per slice":
        classic = dataclasses.replace(classic, all_instances=classic.grid_instances)
    source = enhanced_source(classic, [folder / "one", folder / "other"])
    write_objects(two_discs, source, PICTURE, folder)
    return source, {path.stem: dcmread(path) for path in (folder / "dicom").iterdir()}


@pytest.mark.parametrize("name", ["seg", "t1rho", "t2-se", "sr", "overlay", "mr-t2-003"])
def test_references_to_frames_name_their_object_and_instances_are_named_once(enhanced, name):
    source, objects = enhanced
    uids = set(source.sop_instance_uids)
    assert len(uids) == 2
    n_frames, lists = 0, 0
    for keyword, item in every_item(objects[name]):
        if keyword in ("SourceImageSequence", "ReferencedImageSequence"):
            is_frame = item.ReferencedSOPInstanceUID in uids
            assert is_frame == ("ReferencedFrameNumber" in item)
            assert is_frame == (item.ReferencedSOPClassUID == EnhancedMRImageStorage)
            assert is_frame or str(item.ReferencedSOPInstanceUID) in reference_uids(objects)
            n_frames += is_frame
        for once in ("ReferencedInstanceSequence", "ReferencedSOPSequence"):
            named = [str(one.ReferencedSOPInstanceUID) for one in item.get(once, ())]
            assert len(named) == len(set(named))
            for one in item.get(once, ()):
                lists += one.ReferencedSOPClassUID == EnhancedMRImageStorage
                assert "ReferencedFrameNumber" not in one
    assert bool(n_frames) == (name != "sr")
    assert (lists == 0) if name == "overlay" else (1 <= lists <= 2)


def test_each_frame_of_a_map_was_made_from_the_frame_that_lies_where_it_lies(enhanced):
    source, objects = enhanced
    places = {
        (one.SOPInstanceUID, one.ReferencedFrameNumber): [float(mm) for mm in one.ImagePositionPatient]
        for one in source.all_instances
    }
    assert len(places) == len(source.all_instances)
    references = {one.SOPInstanceUID: one for name, one in objects.items() if name.startswith("reference-")}
    assert bool(references) == (len(source.all_instances) > len(source.grid_instances))
    for group in objects["t2"].PerFrameFunctionalGroupsSequence:
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        if references:
            (image,) = references[image.ReferencedSOPInstanceUID].SourceImageSequence
        found = places[image.ReferencedSOPInstanceUID, image.ReferencedFrameNumber]
        np.testing.assert_allclose(found, group.PlanePositionSequence[0].ImagePositionPatient, atol=1e-6)


def test_writing_changes_nothing_in_the_source(result):
    source = example_exam.source_exam(example_exam.OBLIQUE)
    for index, image in enumerate(source.all_instances):
        image.ImageOrientationPatient = [f"{cosine:.{6 + index % 3}f}" for cosine in image.ImageOrientationPatient]
        image.SliceThickness = None
    before = copy.deepcopy(source.all_instances)
    map_object(result, source, Quantity.T2)
    assert source.all_instances == before


def test_an_exam_with_a_study_for_each_time_is_referred_to_as_a_whole(two_discs, tmp_path):
    """As an anonymiser leaves it that gives each series a study of its own."""
    source = example_exam.source_exam()
    own = source.grid_instances[0].StudyInstanceUID
    for image in source.all_instances:
        if image.EchoTime:
            image.StudyInstanceUID += f".{int(image.EchoTime)}"
            image.SeriesInstanceUID += f".{int(image.EchoTime)}"
    write_objects(two_discs, source, PICTURE, tmp_path)
    for name, others in (
        ("t2", "StudiesContainingOtherReferencedInstancesSequence"),
        ("sr", "PertinentOtherEvidenceSequence"),
    ):
        made = dcmread(tmp_path / "dicom" / f"{name}.dcm")
        assert made.StudyInstanceUID == own
        assert {study.StudyInstanceUID for study in made[others].value} == {
            image.StudyInstanceUID for image in source.all_instances
        } - {own}
        referenced = {str(item.get("ReferencedSOPInstanceUID")) for _, item in every_item(made)}
        assert referenced >= set(source.sop_instance_uids)
