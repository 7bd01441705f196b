"""Real and broken files of other people's scanners and tests: facts or a named refusal, never anything else."""

from pathlib import Path

import pydicom
import pytest

from config.protocol_cards import ProtocolCard, load_cards
from dicom_io.headers import facts_from_json, facts_to_json, read_facts
from dicom_io.protocols import unusable_kind
from dicom_io.series import AssemblyState, assemble_exam
from processing.refusal import ReasonCode, UnsuitableInput

FILES = Path(__file__).parent.parent / "data" / "real_headers"
PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"  # come with the package
ALL = sorted(path for folder in (FILES, PYDICOM_FILES) for path in folder.rglob("*") if path.is_file())

# the single-frame greyscale MR images with all their pixels among them
READABLE = ("MR_small", "examples_overlay", "3_3db0maps", "cl_2001")
ENHANCED = ("6_1.dcm",)
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
        assert [one.frame_number for one in frames] == list(range(1, frames[0].number_of_frames + 1))
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
