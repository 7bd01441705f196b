"""Which disc a segment is: codes before labels before tracking, and no guess where they contradict each other."""

import pytest
from pydicom import Dataset

from dicom_io.codes import DISC_CODES
from dicom_io.segment_names import level_of
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import Level

SRT = {
    "T-D08DC": Level.L5S1,
    "T-1194B": Level.L4L5,
    "T-1193B": Level.L3L4,
    "T-1192B": Level.L2L3,
    "T-1191B": Level.L1L2,
}


def segment(label: str = "", code: str = "85756007", scheme: str = "SCT", **attributes: object) -> Dataset:
    kind = Dataset()
    kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning = code, scheme, "whatever"
    made = Dataset()
    made.SegmentNumber, made.SegmentLabel, made.SegmentedPropertyTypeCodeSequence = 7, label, [kind]
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


@pytest.mark.parametrize(
    ("label", "level"),
    [
        *[("L4/L5", Level.L4L5), ("L4-L5 disc", Level.L4L5), ("L4L5", Level.L4L5), ("L4-5 disc", Level.L4L5)],
        *[("disc l5-s1", Level.L5S1), ("IVD_L5S1", Level.L5S1), ("L5/1", Level.L5S1), ("L5 S1", Level.L5S1)],
        *[
            ("Bandscheibe LWK L2/3", Level.L2L3),
            ("l1 - l2", Level.L1L2),
            ("T12/L1", Level.T12L1),
            ("Th12-L1", Level.T12L1),
        ],
        *[("L3\u2013L4", Level.L3L4), ("L45", None), ("L4", None), ("L4 vertebra", None), ("L3/L5", None), ("", None)],
        *[("L5/L4", None), ("XL4/L5", None), ("Segment_1", None), ("L4/L51", None), ("spinal canal", None)],
    ],
)
def test_labels_as_people_write_them(label: str, level: Level | None) -> None:
    assert level_of(segment(label)) is level


@pytest.mark.parametrize("level", Level)
def test_a_code_is_enough_as_type_and_as_region(level: Level) -> None:
    code = DISC_CODES[level]
    assert level_of(segment("my disc", code.value)) is level
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator = code.value, "SCT"
    assert level_of(segment("", "360499006", AnatomicRegionSequence=[region])) is level


@pytest.mark.parametrize(("code", "level"), SRT.items())
def test_older_codes_of_the_same_meaning_count(code: str, level: Level) -> None:
    assert level_of(segment("", code, "SRT")) is level


def test_a_label_that_contradicts_the_code_is_no_name() -> None:
    for wrong in (segment("L3/L4", DISC_CODES[Level.L4L5].value), segment("L3/L4 or L4/L5")):
        with pytest.raises(UnsuitableInput, match="segment 7 is called L4L5 and L3L4") as refusal:
            level_of(wrong)
        assert refusal.value.reason.code is ReasonCode.LEVELS_AMBIGUOUS


def test_the_description_counts_where_the_label_says_nothing() -> None:
    assert level_of(segment("Segment 1", SegmentDescription="L2/L3 disc")) is Level.L2L3
    assert level_of(segment("L1/L2", SegmentDescription="L2/L3 disc")) is Level.L1L2


def test_the_tracking_uid_counts_last() -> None:
    tracked = {"1.2.3": Level.L2L3}
    assert level_of(segment("Segment 1", TrackingUID="1.2.3"), tracked) is Level.L2L3
    assert level_of(segment("L1/L2", TrackingUID="1.2.3"), tracked) is Level.L1L2
    assert level_of(segment("Segment 1", TrackingUID="1.2.4"), tracked) is None
