"""Derived UIDs and the codes of the outputs."""

import example_exam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.sr._concepts_dict import concepts
from pydicom.uid import UID

from dicom_io import codes
from dicom_io.uids import derived_uid, inputs_digest, result_uid
from processing.results import Level

PARTS = st.lists(st.text("a:1", max_size=4), min_size=1, max_size=3)


@settings(max_examples=50)
@given(PARTS, PARTS)
def test_a_uid_is_valid_and_follows_from_its_parts(one, two):
    assert UID(derived_uid(*one)).is_valid
    assert (derived_uid(*one) == derived_uid(*two)) == (one == two)


def test_a_uid_never_changes_between_releases():
    assert derived_uid("tracking", "patient", "", "P-0815", "L4L5") == "2.25.36085807618591663720513624334590747337"


def test_the_order_of_the_images_does_not_matter():
    assert inputs_digest(["1.2", "1.3"]) == inputs_digest(["1.3", "1.2", "1.2"]) != inputs_digest(["1.2"])


def test_a_version_that_decides_the_numbers_must_be_known():
    result = example_exam.exam_result()
    with pytest.raises(KeyError, match="settings_digest"):
        result_uid(
            type("R", (), {"versions": {k: v for k, v in result.versions.items() if k != "settings_digest"}})(),
            example_exam.source_exam(),
            "seg",
        )


def test_codes_are_those_of_the_standard():
    discs = {code.value: code.meaning for code in codes.DISC_CODES.values()}
    members = {
        value: meaning
        for entries in concepts["SCT"].values()
        for value, (meaning, context_groups) in entries.items()
        if 7604 in context_groups
    }
    assert discs.items() <= members.items()
    assert set(codes.DISC_CODES) == set(Level)
    for name in (
        *("ANATOMICAL_STRUCTURE", "LUMBAR_SPINE", "MEAN", "STANDARD_DEVIATION", "MEDIAN", "VOLUME", "SUM_OF_VOXELS"),
        *("MILLISECOND", "CUBIC_MILLIMETRE", "COUNT", "ARTIFICIAL_INTELLIGENCE", "COMMENT", "MRI_SPINE_REPORT"),
        "DEVICE_OBSERVER",
    ):
        code = getattr(codes, name)
        meanings = [entry[code.value][0] for entry in concepts[code.scheme_designator].values() if code.value in entry]
        assert code.meaning in meanings, name
