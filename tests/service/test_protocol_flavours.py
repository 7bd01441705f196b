"""What every simulated scanner writes is explained, and a reviewed draft of it is accepted."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dicom_io.simulated_scanner import write_exam
from processing.phantom import simulate_exam
from service.cli import main

T1RHO_MS, T2_MS = [0, 10, 40, 80], [0, 12.8, 25.7, 51.4]
FLAVOURS: dict[str, dict[str, Any]] = {
    "ge": {"vendor": "ge"},
    "ge one EchoTime": {"vendor": "ge", "one_echo_time": True},
    "philips": {"vendor": "philips"},
    "philips enhanced": {"vendor": "philips", "enhanced": True},
    "siemens": {"vendor": "siemens"},
    "siemens enhanced": {"vendor": "siemens", "enhanced": True},
}
ACCEPTED = [name for name in FLAVOURS if name != "ge one EchoTime"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    exam = simulate_exam(4, n_slices=3, matrix=32)
    root = tmp_path_factory.mktemp("flavours")
    for name, options in FLAVOURS.items():
        write_exam(exam, root / name, **options)
    return {name: root / name for name in FLAVOURS}


def explain(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    status = main(["protocol", "explain", str(folder), "--json", *options])
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return status, content


@pytest.mark.parametrize("flavour", ACCEPTED)
def test_every_image_of_every_flavour_has_its_time(
    folders: dict[str, Path], flavour: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, content = explain(folders[flavour], capsys)
    assert status == 0
    images = [one for series in content["series"] for one in series["images"] if one["role"] != "anatomy"]
    seen = {(one["slice"], one["time_ms"]) for one in images}
    assert seen == {(number, time) for number in (1, 2, 3) for time in {*T1RHO_MS, *T2_MS}}
    assert all(one["source"] and one["scaling"] and one["is_measured"] for one in images)


def test_one_echo_time_for_all_is_refused_with_what_helps(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    status, content = explain(folders["ge one EchoTime"], capsys)
    assert status == 3
    assert [one["code"] for one in content["reasons"]] == ["ECHO_UNRESOLVED"]
    assert "rule acquisition_order" in content["needed"][0]


def fill_in(text: str) -> str:
    """What a person who knows the protocol writes in place of each TODO."""
    times = text.partition("rule:")[2]
    both = "t2_ms: TODO" in times and "t1rho_ms" in times
    answers = {
        "t1rho_ms": T1RHO_MS,
        "t2_ms": T2_MS,
        "times_ms": [0, 10, 40, 80, 12.8, 25.7, 51.4] if both else T1RHO_MS,  # as the example card has it
        "spin_lock_frequency_hz": 300,
    }
    return re.sub(r"(?m)^( *)(\w+): TODO", lambda found: f"{found[1]}{found[2]}: {answers[found[2]]}", text)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_reviewed_draft_is_accepted(
    folders: dict[str, Path], flavour: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cards = tmp_path / "cards"
    cards.mkdir()
    draft = ["protocol", "draft", str(folders[flavour]), "--name", "mine", "--out", str(cards / "mine.yaml")]
    assert main(draft) == 0
    capsys.readouterr()
    for path in cards.iterdir():
        path.write_text(fill_in(path.read_text()))
    config = tmp_path / "discnode.yaml"
    config.write_text("protocols_dir: cards\n")
    status, content = explain(folders[flavour], capsys, "--config", str(config))
    assert status == 0, content["reasons"]
    assert all(name.startswith("mine") for name in content["measured_protocols"])
