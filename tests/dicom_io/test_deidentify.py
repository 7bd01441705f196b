"""De-identification of one object: what stays is on the list, what stays is the same, and the rest is gone."""

import csv
import hmac
import random
import struct
import subprocess
from collections.abc import Iterator
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from canaries import Canaries, identity, malform, nest
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import need
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset, FileDataset
from pydicom.sr.codedict import codes
from small_mr_exam import mr_dataset

from dicom_io import deidentification_rules as rules
from dicom_io.deidentification_actions import Keeping
from dicom_io.deidentification_rules import Action, action_of
from dicom_io.deidentified_files import deidentified_bytes
from dicom_io.deidentify import deidentify
from dicom_io.descriptors import WORDS, clean_text
from dicom_io.headers import facts_from_bytes
from dicom_io.pseudonyms import Pseudonyms, TrialIdentity, is_standard
from dicom_io.raw_header import parse
from processing.refusal import ReasonCode, UnsuitableInput

DATA = Path(__file__).parents[1] / "data"
KEY = bytes(range(32))
WHO = TrialIdentity("TRIAL-1", "01", "01-007", "M12", "Cells", "Sponsor", "Centre")
PIXELS = (np.arange(64 * 48).reshape(64, 48) * 37 % 4001).astype(np.uint16)
REAL = sorted(path for path in (DATA / "real_headers").rglob("*") if path.suffix in (".dcm", ".132"))


def encoded(dataset: FileDataset) -> bytes:
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def cleaned(dataset: FileDataset, **how: object) -> FileDataset:
    """De-identified, written and read again."""
    made = deidentify(parse(encoded(dataset)), WHO, KEY, **how)  # type: ignore[arg-type]
    return pydicom.dcmread(BytesIO(encoded(made)))


# What may stay, against PS3.15


def test_codes_are_those_of_cid_7050() -> None:
    known = {getattr(codes.cid7050, name) for name in codes.cid7050.dir()}
    assert {*rules.OPTIONS, rules.CLEAN_STRUCTURED_CONTENT} <= known
    assert {code.value: code.meaning for code in known}.items() >= {
        code.value: code.meaning for code in (*rules.OPTIONS, rules.CLEAN_STRUCTURED_CONTENT)
    }.items()
    assert codes.cid7005.DeIdentifyingEquipment == rules.DEIDENTIFYING_EQUIPMENT


def test_what_the_basic_profile_removes_stays_only_by_an_option() -> None:
    """Table E.1-1 names 652 attributes; each that stays here is changed, or is what a recorded option retains."""
    with (DATA / "confidentiality" / "table_e_1_1.csv").open() as stream:
        table = {int(row["tag"], 16): row["basic_profile"] for row in csv.DictReader(stream)}
    assert len(table) == 652
    staying = {tag: action_of(tag) for tag in table if action_of(tag) is not None}
    assert Action.KEEP not in staying.values()
    by_option = {Action.DEVICE: {"DeviceSerialNumber"}, Action.CONTENT: {"ContentSequence"}}
    by_option[Action.PATIENT] = {"PatientSex", "PatientAge", "PatientSize", "PatientWeight"}
    by_option[Action.ITEMS] = {"ReferencedImageSequence", "SourceImageSequence"}  # X/Z/U*: their UIDs are replaced
    for action, keywords in by_option.items():
        assert {keyword_for_tag(tag) for tag, one in staying.items() if one is action} == keywords
    for tag, action in staying.items():
        if action is Action.UID:
            assert table[tag] == "U"
        if action is Action.DATE:
            assert dictionary_VR(tag) in ("DA", "TM", "DT") or keyword_for_tag(tag) == "TimezoneOffsetFromUTC"


def test_overlays_curves_and_group_lengths_go() -> None:
    dataset = mr_dataset(PIXELS)
    dataset.add_new(0x60003000, "OW", b"name")
    dataset.add_new(0x60004000, "LT", "Smith")
    dataset.add_new(0x50003000, "OW", b"name")
    dataset.add_new(0xFFFCFFFC, "OB", b"Smith at the end")
    assert {int(one.tag) >> 16 for one in cleaned(dataset)} <= {8, 0x10, 0x12, 0x18, 0x20, 0x28, 0x7FE0}


# Pseudonyms


def test_uids_are_mapped_alike_and_known_again() -> None:
    one, other = Pseudonyms(KEY, "TRIAL-1", "01-007"), Pseudonyms(KEY, "TRIAL-1", "01-008")
    mapped = one.uid("1.2.840.113619.2.5.1")
    assert mapped == other.uid("1.2.840.113619.2.5.1"), "references between objects of a trial must stay whole"
    assert mapped != Pseudonyms(KEY, "TRIAL-2", "01-007").uid("1.2.840.113619.2.5.1")
    assert mapped != Pseudonyms(bytes(32), "TRIAL-1", "01-007").uid("1.2.840.113619.2.5.1")
    assert one.uid(mapped) == mapped
    assert not Pseudonyms(bytes(32), "TRIAL-1", "01-007").is_mapped(mapped)
    for uid in ("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.2.1", "1.2.840.10008.1.4.1.1"):
        assert is_standard(uid)
        assert one.uid(uid) == uid


@given(st.text("0123456789.", max_size=64))
def test_mapped_uids_are_uids_from_a_uuid_of_version_8(uid: str) -> None:
    mapped = Pseudonyms(KEY, "TRIAL-1", "01-007").uid(f"1.3.{uid}")
    number = int(mapped.removeprefix("2.25."))
    assert pydicom.uid.UID(mapped).is_valid
    assert (number >> 76 & 0xF, number >> 62 & 3) == (8, 2)  # RFC 9562, version and variant


def test_a_guess_at_the_original_cannot_be_checked_without_the_key() -> None:
    """All UIDs that another key makes of the guess are others: there is no unkeyed digest in it."""
    mapped = Pseudonyms(KEY, "TRIAL-1", "01-007").uid("1.2.3.4")
    digests = {hmac.digest(bytes([n]) * 32, b"1.2.3.4", "sha256").hex() for n in range(256)}
    guesses = {Pseudonyms(bytes([n]) * 32, "TRIAL-1", "01-007").uid("1.2.3.4") for n in range(256)}
    assert mapped not in guesses
    assert len(guesses) == len(digests) == 256


def test_shifts_are_whole_weeks_in_the_past_and_differ_between_subjects() -> None:
    days = {Pseudonyms(KEY, "TRIAL-1", f"01-{n:03d}").shift.days for n in range(200)}
    assert all(one % 7 == 0 and -3640 < one <= -364 for one in days)
    assert len(days) > 120


def test_intervals_weekdays_and_times_of_day_stay_exact() -> None:
    visits = [date(2024, 2, 29), date(2024, 10, 27), date(2026, 3, 1)]
    made = [
        cleaned(
            mr_dataset(
                PIXELS,
                StudyDate=f"{day:%Y%m%d}",
                StudyTime="071503.25",
                AcquisitionDateTime=f"{day:%Y%m%d}071503.250000+0100",
                SOPInstanceUID=f"1.2.3.{number}",
            )
        )
        for number, day in enumerate(visits)
    ]
    days = [date.fromisoformat(one.StudyDate) for one in made]
    shift = Pseudonyms(KEY, "TRIAL-1", "01-007").shift
    assert [day - shift for day in days] == visits
    assert [day.weekday() for day in days] == [day.weekday() for day in visits]
    assert {one.StudyTime for one in made} == {"071503.25"}
    for one, day in zip(made, days, strict=True):
        assert str(one.AcquisitionDateTime) == f"{day:%Y%m%d}071503.250000+0100"


def test_dates_that_cannot_be_shifted_go() -> None:
    with pydicom.config.disable_value_validation():
        dataset = mr_dataset(PIXELS, StudyDate="00010101", SeriesDate="20240230", ContentDate="Smith", StudyTime="7 am")
        dataset.AcquisitionDateTime = "2024"
        made = cleaned(dataset)
    values = [made.StudyDate, made.SeriesDate, made.ContentDate, made.StudyTime, made.AcquisitionDateTime]
    assert not any(values)


@pytest.mark.parametrize(
    ("age", "born", "told"), [("046Y", "19800131", ("046Y", "0101")), ("093Y", "19320303", ("090Y", ""))]
)
def test_the_oldest_are_not_told_apart(age: str, born: str, told: tuple[str, str]) -> None:
    made = cleaned(mr_dataset(PIXELS, PatientAge=age, PatientBirthDate=born, StudyDate="20260112"))
    assert (made.PatientAge, made.PatientBirthDate[4:]) == told


# Descriptions


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("WIP MAPSS TSL 0_10_40_80 TE 0_12.8_25.7_51.4 ms", None),
        ("3DMAPPS SL 0_10_40_80ms", None),
        ("MAPSS T1rho T2 Smith", "MAPSS T1rho T2"),
        ("Smith MAPSS TSL40", "MAPSS TSL40"),
        ("MAPSS 12.05.2024", "MAPSS"),
        ("MAPSS 12.05.24", "MAPSS"),
        ("TSL 0_10_40_80 born 1962", "TSL 0_10_40_80"),
        ("Müller-TSL 0_10", "TSL 0_10"),
        ("4711 0815", ""),
        ("Station 12, bed 3", ""),
        ("T1rho map (ms, atlas) - Research use only", None),
        ("model_sha256=05eff3fc8fe460584ffc1860f3f2daac", None),
        ("05eff3fc8fe460584ffc1860f3f2daac", ""),
    ],
)
def test_descriptions_keep_words_of_the_trade_and_their_numbers(text: str, stays: str | None) -> None:
    assert clean_text(text) == (text if stays is None else stays)


@given(st.lists(st.sampled_from((*sorted(WORDS)[::9], "Smith", "0", "12.5", "2024", "_", " ", "-", "é", "(", "TSL40"))))
@settings(max_examples=300)
def test_cleaning_twice_changes_nothing(parts: list[str]) -> None:
    once = clean_text("".join(parts))
    assert clean_text(once) == once
    assert "smith" not in once.lower()
    assert "2024" not in once


def test_a_trial_may_keep_words_of_its_own() -> None:
    made = cleaned(
        mr_dataset(PIXELS, SeriesDescription="SPARTACUS Smith TSL 40"), keeping=Keeping(words=frozenset(["spartacus"]))
    )
    assert made.SeriesDescription == "SPARTACUS TSL 40"


# Canaries


def every_attribute(canaries: Canaries) -> Iterator[tuple[int, str, str]]:
    """A canary for each attribute of DICOM that holds text, and, in an item, for each that holds items."""
    for tag, (vr, _, _, retired, keyword) in sorted(DicomDictionary.items()):
        group = tag >> 16
        if not keyword or group < 8 or group in (0x7FE0, 0xFFFE, 0xFFFA) or retired == "X":
            continue
        if vr in ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT", "DA", "DT", "AS", "UI"):
            yield tag, vr, canaries.next(keyword)
        elif vr == "SQ":
            yield tag, vr, canaries.next(f"{keyword}[PatientName, Private, TextValue, CodeMeaning]")


def test_of_every_attribute_of_dicom_only_the_devices_and_code_strings_can_hold_a_foreign_word() -> None:
    canaries, source = Canaries(seed=7), mr_dataset(PIXELS)
    needed = (
        "SOPClassUID",
        "SOPInstanceUID",
        "SpecificCharacterSet",
        "BurnedInAnnotation",
        "PhotometricInterpretation",
    )
    with pydicom.config.disable_value_validation():
        for tag, vr, text in every_attribute(canaries):
            if keyword_for_tag(tag) in needed:
                continue
            if vr == "SQ":
                item = Dataset()
                item.PatientName = item.TextValue = item.CodeMeaning = text
                item.CodeValue, item.CodingSchemeDesignator = "121106", "DCM"
                item.ContentSequence = [Dataset()]
                item.ContentSequence[0].PersonName = text
                item.add_new(0x00091001, "LO", text)
                source.add_new(tag, "SQ", [item])
            else:
                source.add_new(tag, vr, text)
        content = encoded(deidentify(parse(encoded(source)), WHO, KEY))
    assert len(canaries.placed) > 2000
    found = set(canaries.found_in(content.decode("latin-1")).values())
    allowed = {
        keyword
        for rule in rules.RULES
        for keyword in rule.keywords
        if rule.action is Action.DEVICE or (rule.action is Action.KEEP and dictionary_VR(keyword) == "CS")
    }
    assert found <= allowed, sorted(found - allowed)


def test_two_hundred_canaries_leave_nothing() -> None:
    canaries = Canaries(seed=8)
    contents = []
    for number in range(5):
        image = mr_dataset(PIXELS, **identity(canaries, f"image {number}"))
        nest(image, canaries, f"image {number}")
        malform(image, canaries, f"image {number}")
        image.file_meta.SourceApplicationEntityTitle = canaries.next(f"meta {number}")
        image.file_meta.PrivateInformationCreatorUID = "1.2.3"
        image.file_meta.PrivateInformation = canaries.next(f"private meta {number}").encode() + b" "
        image.preamble = canaries.next(f"preamble {number}").encode().ljust(128, b"\0")
        with pydicom.config.disable_value_validation():
            source = encoded(image)
        content, _ = deidentified_bytes(source, WHO, KEY, keeping=Keeping())
        contents.append(content.decode("latin-1"))
        assert canaries.found_in(source.decode("latin-1"))
    assert len(canaries.placed) >= 200
    assert canaries.found_in(*contents) == {}


def test_a_word_of_the_identity_in_a_kept_attribute_is_refused_without_quoting_it() -> None:
    dataset = mr_dataset(PIXELS, PatientName="Quasimodo^Ann", DeviceSerialNumber="SN QUASIMODO")
    with pytest.raises(UnsuitableInput) as refused:
        deidentified_bytes(encoded(dataset), WHO, KEY, keeping=Keeping())
    assert refused.value.reason.code is ReasonCode.REVIEW_REQUIRED
    assert "DeviceSerialNumber" in refused.value.reason.detail
    assert "uasimodo" not in str(refused.value).lower()


def test_a_patient_whose_id_is_the_subjects_is_not_refused() -> None:
    dataset = mr_dataset(PIXELS, PatientID="01-007", PatientName="01-007", AccessionNumber="01-007")
    content, _ = deidentified_bytes(encoded(dataset), WHO, KEY, keeping=Keeping())
    assert pydicom.dcmread(BytesIO(content)).PatientID == "01-007"


# What stays is the same


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_headers_keep_what_is_measured(path: Path) -> None:
    content = path.read_bytes()
    made = encoded(deidentify(parse(content), WHO, KEY))
    assert made == encoded(deidentify(parse(content), WHO, KEY)), "repeated"
    assert made == encoded(deidentify(parse(made), WHO, KEY)), "de-identified again"
    before, after = facts_from_bytes(content, path), facts_from_bytes(made, path)
    changed = {
        *("sop_instance_uid", "study_uid", "series_uid", "frame_of_reference_uid", "patient_key", "study_date"),
        *("series_description", "protocol_name", "sequence_name", "acquisition_time"),
    }
    for one, other in zip(before, after, strict=True):
        for name in set(type(one).__dataclass_fields__) - changed:
            assert getattr(one, name) == getattr(other, name), name
    source, copy = pydicom.dcmread(BytesIO(content)), pydicom.dcmread(BytesIO(made))
    assert copy.PixelData == source.PixelData
    assert copy.PatientID == copy.PatientName == "01-007"
    text = made.decode("latin-1").lower()
    for keyword in ("InstitutionAddress", "AccessionNumber", "StudyID"):
        value = str(source.get(keyword) or "").lower()
        assert len(value) < 5 or value not in text


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"]
)
def test_private_scale_slopes_stay_in_any_transfer_syntax(syntax: str) -> None:
    dataset = mr_dataset(PIXELS, transfer_syntax=pydicom.uid.UID(syntax), Manufacturer="Philips")
    block = dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
    block.add_new(0x0E, "FL", 0.0123)
    block.add_new(0x99, "LO", "Smith")
    dataset.private_block(0x2005, "SOMEBODY ELSE", create=True).add_new(0x0E, "LO", "Smith")
    content = encoded(dataset)
    made = encoded(deidentify(parse(content), WHO, KEY))
    (before,), (after,) = (facts_from_bytes(one, Path("x")) for one in (content, made))
    assert before.scale_slope == after.scale_slope == pytest.approx(np.float32(0.0123))
    copy = pydicom.dcmread(BytesIO(made))
    assert copy.file_meta.TransferSyntaxUID == syntax
    assert copy.PixelData == dataset.PixelData
    assert [int(one.tag) for one in copy if one.tag.is_private] == [0x20050010, 0x2005100E]


def test_private_elements_with_text_in_the_place_of_a_number_go() -> None:
    dataset = mr_dataset(PIXELS)
    dataset.private_block(0x0019, "GEMS_ACQU_01", create=True).add_new(0xA7, "LO", "Smith")
    dataset.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x38, "DS", ["1", "2.5"])
    made = cleaned(dataset)
    assert [str(one.value) for one in made if one.tag.is_private and one.tag.element > 0xFF] == ["[1, 2.5]"]


def test_what_was_done_is_recorded() -> None:
    made = cleaned(mr_dataset(PIXELS))
    assert (made.PatientIdentityRemoved, made.LongitudinalTemporalInformationModified) == ("YES", "MODIFIED")
    recorded = {item.CodeValue for item in made.DeidentificationMethodCodeSequence}
    assert recorded == {"113100", "113105", "113107", "113108", "113109", "113111"}
    assert "113101" not in recorded, "no pixel was cleaned"
    assert made.ClinicalTrialTimePointID == "M12"
    equipment = made.ContributingEquipmentSequence[-1]
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109104"


# Bad input


def refused(dataset: FileDataset, **how: object) -> ReasonCode:
    with pytest.raises(UnsuitableInput) as error:
        deidentify(parse(encoded(dataset)), WHO, KEY, **how)  # type: ignore[arg-type]
    assert "Small" not in str(error.value)
    return error.value.reason.code


def test_what_no_rule_makes_safe_is_refused() -> None:
    for uid in (
        "1.2.840.10008.5.1.4.1.1.7",
        "1.2.840.10008.5.1.4.1.1.88.33",
        "1.2.840.10008.5.1.4.1.1.104.1",
        "1.2.3.4",
    ):
        assert refused(mr_dataset(PIXELS, SOPClassUID=uid)) is ReasonCode.UNSUPPORTED_OBJECT
    for text in ("YES", "smith"):
        with pydicom.config.disable_value_validation():
            assert refused(mr_dataset(PIXELS, BurnedInAnnotation=text)) is ReasonCode.REVIEW_REQUIRED
    pdf = mr_dataset(PIXELS, SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1")
    assert refused(pdf, is_own=True) is ReasonCode.UNSUPPORTED_OBJECT


def test_another_subjects_copy_is_refused() -> None:
    made = deidentify(parse(encoded(mr_dataset(PIXELS))), WHO, KEY)
    other = TrialIdentity("TRIAL-1", "01", "01-008", "M12")
    with pytest.raises(UnsuitableInput) as error:
        deidentify(parse(encoded(made)), other, KEY)
    assert error.value.reason.code is ReasonCode.IDENTITY_CONFLICT


def test_broken_bytes_never_end_in_another_error() -> None:
    content, chance = encoded(mr_dataset(PIXELS, **identity(Canaries(1), "broken"))), random.Random(4)
    n_made = 0
    for _ in range(150):
        broken = bytearray(content[: chance.randrange(200, 1400)] if chance.random() < 0.3 else content)
        for _ in range(chance.randrange(1, 5)):
            broken[chance.randrange(132, min(len(broken), 1400))] = chance.randrange(256)
        try:
            deidentified_bytes(bytes(broken), WHO, KEY, keeping=Keeping())
            n_made += 1
        except UnsuitableInput:
            continue
    assert n_made > 10


@pytest.mark.peers
def test_clean_objects_stay_clean(tmp_path: Path) -> None:
    need("dciodvfy")
    for path in [
        one for one in REAL if one.name in ("cl_2001_0001.dcm", "philips_enhanced.dcm", "XA30classic_5001001.dcm")
    ]:
        before = dciodvfy(path)
        made = tmp_path / path.name
        made.write_bytes(encoded(deidentify(parse(path.read_bytes()), WHO, KEY)))
        assert dciodvfy(made) - before == set()


def dciodvfy(path: Path) -> set[str]:
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    return {line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")}


def test_numbers_are_the_same_bits() -> None:
    values = [struct.unpack("<d", struct.pack("<Q", 0x3FB999999999999A + n))[0] for n in range(3)]
    dataset = mr_dataset(PIXELS, EchoTime="12.847", RescaleSlope="0.30000000000001")
    dataset.GridResolution = values
    made = cleaned(dataset)
    assert [struct.pack("<d", one) for one in made.GridResolution] == [struct.pack("<d", one) for one in values]
    assert (str(made.EchoTime), str(made.RescaleSlope)) == ("12.847", "0.30000000000001")
    assert Pseudonyms(KEY, "TRIAL-1", "01-007").shift < timedelta(0)
