"""Every output of corrected discs names the person, the program and how much was changed."""

import subprocess
from dataclasses import replace
from pathlib import Path

import example_exam
import numpy as np
import pytest
from peers import need
from pydicom import Dataset, dcmread

from dicom_io.editor import describe_correction, name_editor
from dicom_io.result_objects import write_objects
from processing.refusal import Reason, ReasonCode
from processing.results import Correction, Level, MaskOrigin

CORRECTION = Correction(
    MaskOrigin("cd" * 32, "1.2.3.4", "Müller^Jörg", "3D Slicer 5.8"),
    {Level.L5S1: 0.98765, Level.L4L5: 1.0},
    (Level.L1L2,),
)
WORDS = (
    "Discs drawn or changed by a person, as in 1.2.3.4; Dice with the automatic discs: L5S1 0.988, L4L5 1.000;"
    " removed: L1L2"
)


def test_what_was_changed_in_words() -> None:
    assert describe_correction(CORRECTION) == WORDS
    refused = Correction(MaskOrigin("cd" * 32), {}, (), Reason(ReasonCode.LEVELS_AMBIGUOUS, "no sacrum"))
    assert describe_correction(refused) == (
        "Discs drawn or changed by a person, as in a volume file; no automatic discs: LEVELS_AMBIGUOUS"
    )


@pytest.mark.peers
def test_every_object_names_the_editor_and_is_valid(tmp_path: Path) -> None:
    need("dciodvfy")
    result = replace(example_exam.exam_result(), correction=CORRECTION)
    source = example_exam.source_exam()
    for written in write_objects(result, source, np.zeros((50, 70, 3), np.uint8), tmp_path):
        path = tmp_path / written.path
        dataset = dcmread(path)
        equipment = dataset.ContributingEquipmentSequence[-1]
        assert (equipment.Manufacturer, equipment.ContributionDescription) == ("3D Slicer 5.8", WORDS)
        assert equipment.OperatorsName == "Müller^Jörg"
        if "ContentLabel" in dataset:
            assert dataset.ContentCreatorName == "Müller^Jörg"
        checked = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
        assert "Error" not in checked.stdout + checked.stderr, written.kind


@pytest.mark.parametrize(
    ("character_set", "editor", "kept"),
    [
        ("ISO_IR 192", "山田^太郎", "山田^太郎"),
        ("ISO_IR 100", "山田^Taro", "??^Taro"),
        ("ISO_IR 6", "Müller", "M?ller"),
        (None, "Müller", "M?ller"),
        (["", "ISO 2022 IR 87"], "Müller", "M?ller"),
    ],
)
def test_a_name_that_the_character_set_cannot_hold_breaks_nothing(
    character_set: str | list[str] | None, editor: str, kept: str, tmp_path: Path
) -> None:
    dataset = Dataset()
    if character_set is not None:
        dataset.SpecificCharacterSet = character_set
    dataset.ContentLabel = "DISCS"
    name_editor(dataset, replace(CORRECTION, origin=replace(CORRECTION.origin, editor=editor)))
    dataset.save_as(tmp_path / "one.dcm", implicit_vr=False, little_endian=True)
    read = dcmread(tmp_path / "one.dcm", force=True)
    assert read.ContentCreatorName == kept
    assert read.ContributingEquipmentSequence[0].OperatorsName == kept
