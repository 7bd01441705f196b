"""``discnode protocol`` on files, as a user runs it."""

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
import yaml
from small_mr_exam import mapss_signal, mr_dataset, write_mapss

from service.cli import main


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    """A MAPSS series of four slices whose patient has a name."""
    folder = tmp_path / "exam"
    folder.mkdir()
    write_mapss(folder, mapss_signal(), PatientName="Canaryname^Given", PatientID="CANARYID")
    return folder


def explained(capsys: pytest.CaptureFixture[str], *words: object, status: int) -> str:
    assert main(["protocol", "explain", *map(str, words)]) == status
    return capsys.readouterr().out


def test_explain_sums_up_what_is_alike(exam: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = explained(capsys, exam, status=0)
    lines = [line.split() for line in text.splitlines()]
    assert ["4", "1-4", "0", "ms", "T1rho", "and", "T2", "EchoTime", "(0018,0081)", "stored", "values"] in lines
    assert ["4", "1-4", "51.4", "ms", "T2", "EchoTime", "(0018,0081)", "stored", "values"] in lines
    assert "Verdict: would be measured as ge-mapss" in text
    assert "canary" not in text.lower()


def test_explain_can_name_each_image(exam: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = explained(capsys, exam, "--images", status=0)
    for path in exam.iterdir():
        assert sum(line.split()[:1] == [path.name] for line in text.splitlines()) == 1


def test_explain_as_json_holds_every_image(exam: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(explained(capsys, exam, "--json", status=0))
    assert (content["accepted"], content["state"], content["needed"]) == (True, "complete", [])
    (series,) = content["series"]
    assert {one["file"] for one in series["images"]} == {path.name for path in exam.iterdir()}
    for one in series["images"]:
        written = float(pydicom.dcmread(exam / one["file"], stop_before_pixels=True).EchoTime)
        assert one["time_ms"] == pytest.approx(written)
        assert one["is_measured"]


def test_explain_says_what_would_be_needed(exam: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in exam.glob("*-4-[12]"):
        path.unlink()
    (exam / "broken.dcm").write_bytes(b"no DICOM")
    text = explained(capsys, exam, status=3)
    assert "SERIES_INCOMPLETE: ge-mapss: 26/28 images" in text
    assert "UNREADABLE: file " in text
    assert "  - Send the missing images of ge-mapss: TSL 40 ms at slices 2, 3." in text


def test_explain_names_phase_images_and_does_not_print_a_name_in_a_description(
    exam: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phase = mr_dataset(
        np.zeros((6, 5), np.uint16),
        SOPInstanceUID="1.2.9",
        SeriesInstanceUID="1.2.3.9",
        SeriesDescription="MAPSS of Canaryname phase",
        PatientName="Canaryname^Given",
        PatientID="CANARYID",
        ImageType=["ORIGINAL", "PRIMARY", "PHASE"],
    )
    phase.save_as(exam / "phase.dcm", enforce_file_format=True)
    text = explained(capsys, exam, status=0)
    assert "phase image (ImageType PHASE)" in text
    assert "'MAPSS of *** phase'" in text
    assert "canary" not in text.lower()


def test_what_is_not_there_is_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for action in ("explain", "draft"):
        assert main(["protocol", action, str(tmp_path / "nowhere")]) == 2
        assert "nowhere" in capsys.readouterr().err


def test_an_empty_folder_is_refused_and_not_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no image" in explained(capsys, tmp_path, status=3)
    assert main(["protocol", "draft", str(tmp_path)]) == 3


def test_a_draft_is_filled_in_and_then_the_same_images_are_accepted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, cards = tmp_path / "exam", tmp_path / "cards"
    folder.mkdir()
    cards.mkdir()
    write_mapss(folder, mapss_signal(), SeriesDescription="SPINE T1R/T2", ProtocolName="spine")
    assert "PROTOCOL_UNKNOWN" in explained(capsys, folder, status=3)
    card = cards / "spine.yaml"
    assert main(["protocol", "draft", str(folder), "--name", "site-spine", "--out", str(card)]) == 0
    assert "to be filled in: times.t1rho_ms, times.t2_ms" in capsys.readouterr().err
    config = tmp_path / "discnode.yaml"
    config.write_text("protocols_dir: cards\n")
    assert main(["protocol", "explain", str(folder), "--config", str(config)]) == 2
    assert "spine.yaml: times.t1rho_ms" in capsys.readouterr().err

    text = card.read_text().replace("t1rho_ms: TODO", "t1rho_ms: [0, 10, 40, 80]")
    text = text.replace("t2_ms: TODO", "t2_ms: [0, 12.8, 25.7, 51.4]").replace("_hz: TODO", "_hz: 500")
    card.write_text(text)
    assert "would be measured as site-spine" in explained(capsys, folder, "--config", config, status=0)
    assert main(["protocol", "list", "--config", str(config)]) == 0
    listed = capsys.readouterr().out
    assert "site-spine: SPINE T1R/T2" in listed
    assert "T2 0, 12.8, 25.7, 51.4 ms" in listed


def test_a_draft_does_not_overwrite_and_has_the_right_suffix(exam: Path, tmp_path: Path) -> None:
    out = tmp_path / "card.yaml"
    out.write_text("mine")
    assert main(["protocol", "draft", str(exam), "--out", str(out)]) == 2
    assert main(["protocol", "draft", str(exam), "--out", str(tmp_path / "card.txt")]) == 2
    assert out.read_text() == "mine"
    assert not (tmp_path / "card.txt").exists()
    with pytest.raises(SystemExit):
        main(["protocol", "draft", str(exam), "--name", "No Name"])


def test_a_draft_on_stdout_is_yaml(exam: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["protocol", "draft", str(exam)]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["replaces"] == ["ge-mapss"]


def test_control_characters_of_a_header_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "exam"
    folder.mkdir()
    write_mapss(folder, mapss_signal(), Manufacturer="GE \x1b[2J SYSTEMS", SeriesDescription="MAPSS \x1b[31m")
    assert "\x1b" not in explained(capsys, folder, status=0)


def test_a_draft_names_the_elements_that_tell_the_images_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A GE sequence with one EchoTime whose spin-lock time stands in a private element: the card can read it there."""
    folder, cards = tmp_path / "exam", tmp_path / "cards"
    folder.mkdir()
    cards.mkdir()
    for number, path in enumerate(write_mapss(folder, mapss_signal())):
        image = pydicom.dcmread(path)
        image.private_block(0x0019, "GEMS_ACQU_01", create=True).add_new(0xB0, "DS", f"{image.EchoTime:g}")
        image.EchoTime, image.EchoNumbers, image.InstanceNumber = 2.1, 1, number
        image.save_as(path)
    assert main(["protocol", "draft", str(folder), "--out", str(cards / "ge.yaml"), "--name", "ge-private"]) == 0
    text = (cards / "ge.yaml").read_text()
    address = "{group: '0019', creator: \"GEMS_ACQU_01\", offset: 'B0'}"
    assert f"'(0019,xxB0) GEMS_ACQU_01': 0, 10, 12.8, 25.7, 40, 51.4, 80; element: {address}" in text
    assert "InstanceNumber'" not in text

    order = text[text.index("  order:") : text.index("expected:")]
    text = text.replace(order, "").replace("rule: acquisition_order", f"rule: element\n  element: {address}")
    text = text.replace("t1rho_ms: TODO", "t1rho_ms: [0, 10, 40, 80]")
    text = text.replace("t2_ms: TODO", "t2_ms: [0, 12.8, 25.7, 51.4]").replace("_hz: TODO", "_hz: 500")
    (cards / "ge.yaml").write_text(text)
    config = tmp_path / "discnode.yaml"
    config.write_text("protocols_dir: cards\n")
    capsys.readouterr()
    assert "(0019,xxB0) GEMS_ACQU_01" in explained(capsys, folder, "--config", config, status=0)
