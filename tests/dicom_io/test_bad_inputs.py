"""Real and broken files of other people's scanners and tests: facts or a named refusal, never anything else."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from config.protocol_cards import ProtocolCard, ScalingRule, load_cards
from dicom_io.headers import ImageFacts, facts_from_json, facts_to_json, read_facts
from dicom_io.pixels import read_image, read_images
from dicom_io.protocols import unusable_kind
from dicom_io.series import AssemblyState, assemble_exam
from processing.refusal import ReasonCode, UnsuitableInput

FILES = Path(__file__).parent.parent / "data" / "real_headers"
PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"  # come with the package
ALL = sorted(path for folder in (FILES, PYDICOM_FILES) for path in folder.rglob("*") if path.is_file())

# the single-frame greyscale MR images with all their pixels among them
READABLE = ("MR_small", "examples_overlay", "3_3db0maps", "cl_2001", "2_gre", "XA30", "TE_")
ENHANCED = ("6_1.dcm", "IM_0027_fMAP.dcm", "hyperfine.dcm", "philips_enhanced.dcm")
READABLE_FOLDERS = ("MR1", "MR2", "MR700")


def philips_card() -> ProtocolCard:
    """A card that fits the two-echo Philips field map, which is no disc protocol but a real series."""
    return ProtocolCard.model_validate(
        {
            "name": "philips-field-map",
            "description": "for this test",
            "role": "relaxometry",
            "match": {"manufacturer": "Philips", "series_description": "Field Mapping"},
            "times": {"rule": "echo_time", "t2_ms": [2.3, 4.6, 6.9], "tolerance_ms": 0.1},
            "expected": {"min_slices": 1, "max_slices": 10},
            "scaling": "rescale_if_present",
        }
    )


def compare_with_pydicom(path: Path, frames: tuple[ImageFacts, ...]) -> None:
    """The frames against pydicom's own reading of the functional groups and the pixels."""
    header = pydicom.dcmread(path)
    shared = header.SharedFunctionalGroupsSequence[0]
    stored = header.pixel_array
    assert [one.frame_number for one in frames] == list(range(1, header.NumberOfFrames + 1))
    signals = [signal for signal, _ in read_images(frames, ScalingRule.RESCALE_IF_PRESENT)]
    for one, group, signal, pixels in zip(
        frames, header.PerFrameFunctionalGroupsSequence, signals, stored, strict=True
    ):

        def value(macro: str, keyword: str, group: pydicom.Dataset = group) -> object:
            return (group if macro in group else shared)[macro].value[0][keyword].value

        assert list(one.position) == value("PlanePositionSequence", "ImagePositionPatient")
        assert list(one.orientation) == value("PlaneOrientationSequence", "ImageOrientationPatient")
        assert list(one.pixel_spacing_mm) == value("PixelMeasuresSequence", "PixelSpacing")
        assert one.echo_time_ms == value("MREchoSequence", "EffectiveEchoTime")
        assert one.complex_component == value("MRImageFrameTypeSequence", "ComplexImageComponent")
        slope, intercept = (
            float(value("PixelValueTransformationSequence", keyword))
            for keyword in ("RescaleSlope", "RescaleIntercept")
        )
        assert (one.rescale_slope, one.rescale_intercept) == (slope, intercept)
        np.testing.assert_allclose(signal, pixels * slope + intercept, rtol=1e-6)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_every_file_gives_facts_or_a_named_refusal(path: Path) -> None:
    if path.name.startswith(READABLE) or path.parent.name in READABLE_FOLDERS:
        all_facts = read_facts(path)
        assert facts_from_json(facts_to_json(all_facts), path) == all_facts
        assert not assemble_exam(all_facts, load_cards()).is_complete
        (facts,) = all_facts
        header = pydicom.dcmread(path, stop_before_pixels=True)
        assert (facts.rows, facts.columns) == (header.Rows, header.Columns)
        assert facts.sop_instance_uid == header.SOPInstanceUID
        assert facts.echo_time_ms == header.get("EchoTime")
        assert list(facts.position) == list(header.ImagePositionPatient)
        return
    if path.name in ENHANCED:
        frames = read_facts(path)
        assert facts_from_json(facts_to_json(frames), path) == frames
        assert not assemble_exam(frames, load_cards()).is_complete
        compare_with_pydicom(path, frames)
        return
    with pytest.raises(UnsuitableInput) as caught:
        read_facts(path)
    assert caught.value.reason.code in (ReasonCode.UNREADABLE, ReasonCode.UNSUPPORTED_OBJECT)
    assert caught.value.reason.detail


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("pydicom/MR_truncated.dcm", ReasonCode.UNREADABLE, "(7FE0,0010) announces 8192 bytes, 8130 are there"),
        ("pydicom/no_meta.dcm", ReasonCode.UNREADABLE, "not a DICOM file"),
        ("pydicom/meta_missing_tsyntax.dcm", ReasonCode.UNREADABLE, "TransferSyntaxUID"),
        ("pydicom/badVR.dcm", ReasonCode.UNSUPPORTED_OBJECT, "RT Dose Storage"),
        ("README.md", ReasonCode.UNREADABLE, "not a DICOM file"),
    ],
)
def test_refusals_say_what_is_wrong(name: str, code: ReasonCode, text: str) -> None:
    path = PYDICOM_FILES / name.removeprefix("pydicom/") if name.startswith("pydicom/") else FILES / name
    with pytest.raises(UnsuitableInput) as caught:
        read_facts(path)
    assert caught.value.reason.code is code
    assert text in caught.value.reason.detail


def test_ge_header() -> None:
    (facts,) = read_facts(FILES / "dcm_qa_fmap" / "3_3db0maps_i100380.MRDC.132")
    assert facts.manufacturer == "GE MEDICAL SYSTEMS"
    assert (facts.echo_time_ms, facts.images_in_acquisition, facts.ge_complex_part) == (1.6, 160, 0)
    assert unusable_kind(facts) is None


def test_philips_phase_is_set_aside_and_a_third_echo_awaited() -> None:
    facts = [one for path in sorted((FILES / "dcm_qa_philips_enh").glob("*.dcm")) for one in read_facts(path)]
    assert len({one.series_uid for one in facts}) == 1
    assembly = assemble_exam(facts, [philips_card()])
    assert assembly.state is AssemblyState.INCOMPLETE
    assert [why for _, why in assembly.set_aside] == ["phase image (ImageType PHASE MAP)"]
    assert "missing" in assembly.missing_text
    assert {image.time_ms for image in assembly.missing} >= {6.9}


def test_siemens_classic_of_xa30_leaves_times_empty() -> None:
    (facts,) = read_facts(FILES / "dcm_qa_sag" / "XA30classic_5001001.dcm")
    assert facts.image_type == ("ORIGINAL", "PRIMARY", "M", "ND", "MFSPLIT")
    assert (facts.echo_time_ms, facts.trigger_time_ms, facts.inversion_time_ms) == (30.0, None, None)
    assert facts.echo_numbers == ()
    assert unusable_kind(facts) is None


def test_siemens_echoes_of_one_slice() -> None:
    facts = [read_facts(path)[0] for path in sorted((FILES / "dcmstack").glob("*.dcm"))]
    assert [(one.echo_time_ms, one.echo_numbers) for one in facts] == [(20.0, (1,)), (40.0, (2,)), (60.0, (3,))]
    assert len({one.position for one in facts}) == len({one.series_uid for one in facts}) == 1
    assert len({one.pixel_sha256 for one in facts}) == 3


def test_siemens_enhanced_tells_sequence_and_order() -> None:
    frames = read_facts(FILES / "dcm_qa_enh" / "6_1.dcm")
    assert {(one.sequence_name, one.acquisition_number, one.temporal_position) for one in frames} == {
        ("*epfid2d1_64", 1, 1)
    }
    assert [round(one.position[2], 2) for one in frames] == [-5.4, -3.0, -0.6, 1.8, 4.2, 6.6]
    assert not any(unusable_kind(one) for one in frames)


def test_philips_enhanced_with_magnitude_and_field_map_in_one_object() -> None:
    frames = read_facts(FILES / "dcm_qa_enh" / "IM_0027_fMAP.dcm")
    magnitude = [one for one in frames if one.complex_component == "MAGNITUDE"]
    assert [one.frame_number for one in magnitude] == list(range(1, 33))
    assert {(one.scale_slope, one.rescale_slope) for one in magnitude} == {(8.448640073766e-06, 1.27985347985347)}
    assert not any(unusable_kind(one) for one in magnitude)
    others = [one for one in frames if one not in magnitude]
    assert {(one.complex_component, one.image_type[3], one.rescale_intercept) for one in others} == {
        ("REAL", "FIELD_MAP", -500.0)
    }
    assert all(unusable_kind(one) for one in others)
    assert {(one.scanning_sequence, one.echo_numbers, one.sequence_name) for one in magnitude} == {("GR", (1,), "FFE")}


def test_philips_enhanced_in_time() -> None:
    frames = read_facts(FILES / "dicom2nifti" / "philips_enhanced.dcm")
    assert [one.temporal_position for one in frames] == [1, 2, 3, 4] * 8
    assert len({one.position for one in frames}) == 8
    assert {one.scale_slope for one in frames} == {0.000542474735993892}
    # the private item of the frame says -107.1068..., half a pixel off
    assert frames[0].position[0] == -105.45055687427
    assert {one.spacing_between_slices_mm for one in frames} == {3.313}


def test_hyperfine_keeps_the_place_of_the_first_frame_at_the_root() -> None:
    frames = read_facts(FILES / "dicom2nifti" / "hyperfine.dcm")
    assert [one.position[2] for one in frames] == [-175, -170, -165, -160, -155, -150, -145, -140]
    assert {(round(one.echo_time_ms or 0, 6), one.inversion_time_ms) for one in frames} == {(194.4, 1400.0)}
    assert {one.slice_thickness_mm for one in frames} == {5.0}


def test_classic_philips_scale_slope() -> None:
    (facts,) = read_facts(FILES / "dcm_qa_philips_enh" / "cl_2001_0001.dcm")
    assert (facts.scale_slope, facts.rescale_slope) == (0.00023798899201210588, 1.29157509157509)
    signal, _ = read_image(facts, ScalingRule.PHILIPS_SCALE_SLOPE)
    np.testing.assert_allclose(signal, pydicom.dcmread(facts.path).pixel_array / 0.00023798899201210588, rtol=1e-6)
