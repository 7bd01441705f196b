from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_VR
from small_mr_exam import mr_dataset

from dicom_io.header_excerpt import TECHNICAL_KEYWORDS, read_excerpt, strike_out, struck_out_texts
from processing.refusal import ReasonCode, UnsuitableInput

TEXT_VRS = {
    "AE": "CANARY",
    "AS": "042Y",
    "CS": "CANARY",
    "DA": "19421231",
    "LO": "Canary",
    "LT": "Canary",
    "PN": "Canary^X",
}
TEXT_VRS |= {"SH": "Canary", "ST": "Canary", "TM": "121212", "UT": "Canary", "UC": "Canary", "DT": "19421231"}


def write(folder: Path, **attributes: object) -> Path:
    path = folder / "image.dcm"
    mr_dataset(np.zeros((6, 5), np.uint16), **attributes).save_as(path, enforce_file_format=True)
    return path


def test_no_text_but_the_technical_ones_is_ever_shown(tmp_path: Path) -> None:
    """A canary in every text attribute of pydicom's dictionary that is not on the list."""
    dataset = mr_dataset(np.zeros((6, 5), np.uint16))
    for tag, entry in pydicom.datadict.DicomDictionary.items():
        value, keyword = TEXT_VRS.get(entry[0]), entry[4]
        if (
            value is None
            or not keyword
            or keyword in TECHNICAL_KEYWORDS
            or tag >> 16 in (0, 2)
            or keyword == "SpecificCharacterSet"
        ):
            continue
        setattr(dataset, keyword, value)
    path = tmp_path / "canaries.dcm"
    dataset.save_as(path, enforce_file_format=True)
    text = str(read_excerpt(path)).lower()
    assert "canary" not in text
    assert "1942" not in text
    assert "echotime" in text


def test_numbers_and_names_are_readable(tmp_path: Path) -> None:
    excerpt = read_excerpt(write(tmp_path))
    assert excerpt["SOPClassUID"] == "MR Image Storage"
    assert excerpt["TransferSyntax"] == "Explicit VR Little Endian"
    assert (excerpt["Rows"], excerpt["Columns"]) == ("6", "5")
    assert excerpt["PixelSpacing"] == r"0.8\0.6"


def test_names_in_free_texts_are_struck_out(tmp_path: Path) -> None:
    path = write(tmp_path, PatientName="Müller^Ann", PatientID="P17", SeriesDescription="mÜLLER Ann P17 T2 annulus",
                 SpecificCharacterSet="ISO_IR 100")  # fmt: skip
    assert read_excerpt(path)["SeriesDescription"] == "*** *** *** T2 annulus"
    assert list(struck_out_texts(path).values()) == ["*** *** *** T2 annulus"]


def test_a_broken_value_is_said_and_a_broken_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x10\x00LO\x02\x00"))
    assert "Rows" in read_excerpt(path)
    path.write_bytes(b"junk")
    with pytest.raises(UnsuitableInput) as caught:
        read_excerpt(path)
    assert caught.value.reason.code is ReasonCode.UNREADABLE


@pytest.mark.parametrize("keyword", TECHNICAL_KEYWORDS)
def test_listed_attributes_exist_and_are_no_persons_or_dates(keyword: str) -> None:
    assert dictionary_VR(keyword) not in ("PN", "DA", "DT", "TM", "SQ")


def test_short_words_are_struck_out_only_as_words() -> None:
    assert strike_out("Ann's annulus ANN", {"Ann"}) == "***'s annulus ***"
