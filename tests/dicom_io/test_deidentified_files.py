"""De-identified exams are assembled, scaled and placed as before, to the last bit; bad input leaves nothing."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pydicom
import pytest
from canaries import Canaries, identity, nest
from PIL import Image, ImageDraw
from small_mr_exam import mapss_signal, write_mapss

import config.protocol_cards
from config.deidentification import Deidentification
from config.protocol_cards import ProtocolCard, load_cards
from dicom_io.deidentified_files import deidentify_exam
from dicom_io.headers import read_facts
from dicom_io.pseudonyms import TrialIdentity
from dicom_io.series import assemble_exam
from dicom_io.simulated_scanner import write_exam
from dicom_io.volume_reader import ExamImages, find_dicom_files, read_exam
from processing.phantom import PhantomExam, simulate_exam
from processing.refusal import ReasonCode, UnsuitableInput

KEY = b"\x07" * 32
WHO = TrialIdentity("TRIAL-1", "01", "01-007", "M12")
CARDS = load_cards()
EXAMPLES = load_cards(Path(config.protocol_cards.__file__).parent / "protocols" / "examples")
USUAL = Deidentification()
FLAVOURS: Mapping[str, dict[str, object]] = {
    "ge": {"vendor": "ge"},
    "ge, one EchoTime": {"vendor": "ge", "one_echo_time": True},
    "siemens": {"vendor": "siemens"},
    "siemens, enhanced": {"vendor": "siemens", "enhanced": True},
    "philips": {"vendor": "philips"},
    "philips, enhanced": {"vendor": "philips", "enhanced": True},
    "philips, one scan": {"vendor": "philips", "one_scan": True},
    "philips, with phase": {"vendor": "philips", "phase_images": True},
}


@pytest.fixture(scope="module")
def phantom() -> PhantomExam:
    return simulate_exam(5, n_slices=3, matrix=64)


def images_of(folder: Path, cards: tuple[ProtocolCard, ...]) -> ExamImages:
    return read_exam(assemble_exam([one for path in find_dicom_files([folder]) for one in read_facts(path)], cards))


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_flavour_is_read_as_before(flavour: str, phantom: PhantomExam, tmp_path: Path) -> None:
    cards = EXAMPLES if flavour == "ge, one EchoTime" else CARDS
    paths = write_exam(phantom, tmp_path / "exam", **FLAVOURS[flavour])
    files = deidentify_exam([tmp_path / "exam"], tmp_path / "out", WHO, KEY, settings=USUAL, cards=cards)
    assert {file.path for file in files} == set((tmp_path / "out").iterdir())
    assert len(files) == len(paths)
    before, after = images_of(tmp_path / "exam", cards), images_of(tmp_path / "out", cards)
    assert after.protocols == before.protocols
    assert after.times_ms == before.times_ms
    np.testing.assert_array_equal(after.background.affine, before.background.affine)
    for one, other in zip(after.stacks, before.stacks, strict=True):
        assert (one.role, one.times_ms) == (other.role, other.times_ms)
        assert one.signal.tobytes() == other.signal.tobytes()
    if flavour not in ("ge", "philips, enhanced"):
        return
    again = tmp_path / "again"
    deidentify_exam(paths[::-1], again, WHO, KEY, settings=USUAL, cards=cards)
    assert bytes_of(again) == bytes_of(tmp_path / "out"), "repeated, in another order"
    deidentify_exam([tmp_path / "out"], tmp_path / "twice", WHO, KEY, settings=USUAL, cards=cards)
    assert bytes_of(tmp_path / "twice") == bytes_of(tmp_path / "out"), "de-identified again"


def test_visits_of_a_subject_share_frames_and_patients_but_no_dates(phantom: PhantomExam, tmp_path: Path) -> None:
    """Two visits, months apart: the interval is the same to the day; UIDs that both name become one UID."""
    days = {}
    for name, day in (("BL", "20250110"), ("M12", "20260112")):
        (tmp_path / name).mkdir()
        uids = {"StudyInstanceUID": f"1.2.{day}", "StudyDate": day, "SeriesInstanceUID": f"1.2.{day}.1"}
        write_mapss(tmp_path / name, mapss_signal(3), **uids, FrameOfReferenceUID="1.2.9")
        who = TrialIdentity("TRIAL-1", "01", "01-007", name)
        files = deidentify_exam([tmp_path / name], tmp_path / f"out-{name}", who, KEY, settings=USUAL, cards=CARDS)
        days[name] = pydicom.dcmread(files[0].path)
    baseline, follow_up = days["BL"], days["M12"]
    assert baseline.FrameOfReferenceUID == follow_up.FrameOfReferenceUID != "1.2.9"
    assert baseline.StudyInstanceUID != follow_up.StudyInstanceUID
    interval = np.datetime64(follow_up.StudyDate[:4] + "-" + follow_up.StudyDate[4:6] + "-" + follow_up.StudyDate[6:])
    start = np.datetime64(baseline.StudyDate[:4] + "-" + baseline.StudyDate[4:6] + "-" + baseline.StudyDate[6:])
    assert interval - start == np.datetime64("2026-01-12") - np.datetime64("2025-01-10")
    assert "2025" not in str(start)
    assert "2026" not in str(interval)


def test_names_of_files_and_canaries_do_not_come_through(tmp_path: Path) -> None:
    canaries = Canaries(seed=9)
    folder = tmp_path / canaries.next("folder")
    folder.mkdir()
    marks = identity(canaries, "exam") | {"StudyDate": "20260112", "AccessionNumber": "A4711X9"}
    for number, path in enumerate(write_mapss(folder, mapss_signal(3), **marks)):
        image = pydicom.dcmread(path)
        nest(image, canaries, f"image {number}")
        image.save_as(folder / f"{canaries.next('file')}.dcm", enforce_file_format=True)
        path.unlink()
    deidentify_exam([folder], tmp_path / "out", WHO, KEY, settings=USUAL, cards=CARDS)
    written = bytes_of(tmp_path / "out")
    assert len(canaries.placed) > 150
    assert canaries.found_in(*written, *(content.decode("latin-1") for content in written.values())) == {}


def refused(paths: list[Path], out: Path, **how: object) -> UnsuitableInput:
    settings = how.pop("settings", USUAL)
    with pytest.raises(UnsuitableInput) as error:
        deidentify_exam(paths, out, WHO, KEY, settings=settings, cards=CARDS, **how)  # type: ignore[arg-type]
    assert [path.name for path in out.parent.iterdir() if "out" in path.name] == [], "nothing half done is left"
    return error.value


def test_one_bad_file_refuses_all_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "exam"
    folder.mkdir()
    paths = write_mapss(folder, mapss_signal(3))
    whole = paths[4].read_bytes()
    for content, code in (
        (whole[:-30], ReasonCode.UNREADABLE),
        (b"a letter about Mrs Smith", ReasonCode.UNREADABLE),
        (whole.replace(b"1.2.840.10008.5.1.4.1.1.4\0", b"1.2.840.10008.5.1.4.1.1.7\0"), ReasonCode.UNSUPPORTED_OBJECT),
        (whole.replace(b"P-17", b"P-18"), ReasonCode.IDENTITY_CONFLICT),
        (paths[3].read_bytes(), ReasonCode.INSTANCE_CONFLICT),
    ):
        paths[4].write_bytes(content)
        assert refused([folder], tmp_path / "out").reason.code is code
    shutil.rmtree(folder)
    assert refused([folder], tmp_path / "out").reason.code is ReasonCode.UNREADABLE


def test_an_exam_that_its_card_would_no_longer_know_is_refused_until_the_plan_has_its_word(tmp_path: Path) -> None:
    card = next(one for one in CARDS if one.name == "ge-mapss")
    odd = card.model_copy(
        update={"name": "odd", "match": card.match.model_copy(update={"series_description": "^QUUX"})}
    )
    (tmp_path / "exam").mkdir()
    write_mapss(tmp_path / "exam", mapss_signal(3), SeriesDescription="QUUX Smith")
    with pytest.raises(UnsuitableInput) as error:
        deidentify_exam([tmp_path / "exam"], tmp_path / "out", WHO, KEY, settings=USUAL, cards=(odd,))
    assert error.value.reason.code is ReasonCode.PROTOCOL_DEVIATION
    assert "vocabulary" in error.value.reason.detail
    with_word = Deidentification(vocabulary=("quux",))
    files = deidentify_exam([tmp_path / "exam"], tmp_path / "out", WHO, KEY, settings=with_word, cards=(odd,))
    assert {pydicom.dcmread(file.path).SeriesDescription for file in files} == {"QUUX"}


def test_text_in_the_pixels_holds_the_exam_until_a_person_has_looked(tmp_path: Path) -> None:
    (tmp_path / "exam").mkdir()
    signal = np.random.default_rng(3).integers(0, 900, (7, 3, 96, 128)).astype(np.uint16)
    drawn = Image.new("1", (128, 96))
    ImageDraw.Draw(drawn).text((4, 80), "SMITH ANN 1962", fill=1)
    signal[2, 1][np.asarray(drawn)] = 4095
    write_mapss(tmp_path / "exam", signal)
    error = refused([tmp_path / "exam"], tmp_path / "out")
    assert error.reason.code is ReasonCode.REVIEW_REQUIRED
    files = deidentify_exam(
        [tmp_path / "exam"], tmp_path / "out", WHO, KEY, settings=USUAL, cards=CARDS, pixels_seen=True
    )
    assert len(files) == 21
