"""Exams as each vendor's scanner writes them: whole in any order; with an image lost, never measured but named."""

import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from config.protocol_cards import ProtocolCard, load_cards
from dicom_io.headers import ImageFacts, read_facts
from dicom_io.series import AssemblyState, assemble_exam
from dicom_io.simulated_scanner import write_exam
from processing.phantom import PhantomExam, simulate_exam

N_SLICES = 4
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
EXAMPLES = Path(__file__).parents[2] / "config" / "protocols" / "examples"


@pytest.fixture(scope="module")
def phantom() -> PhantomExam:
    return simulate_exam(5, n_slices=N_SLICES, matrix=64)


@pytest.fixture(scope="module", params=FLAVOURS)
def exam(
    request: pytest.FixtureRequest, phantom: PhantomExam, tmp_path_factory: pytest.TempPathFactory
) -> list[ImageFacts]:
    paths = write_exam(phantom, tmp_path_factory.mktemp("exam"), **FLAVOURS[request.param])
    return [one for path in paths for one in read_facts(path)]


@pytest.fixture
def cards(exam: list[ImageFacts]) -> tuple[ProtocolCard, ...]:
    is_constant = len({one.echo_time_ms for one in exam if "MAPSS" in one.series_description}) == 1
    return load_cards(EXAMPLES if is_constant and exam[0].manufacturer.startswith("GE") else None)


def test_whole_exams_are_complete_in_any_order(exam: list[ImageFacts], cards: tuple[ProtocolCard, ...]) -> None:
    shuffled = list(exam)
    random.Random(1).shuffle(shuffled)
    assembly = assemble_exam(shuffled, cards)
    assert assembly.is_complete, assembly.reasons
    assert {len(row) for series in assembly.relaxometry for row in series.grid} == {N_SLICES}
    assert sorted({time for series in assembly.relaxometry for time in series.times_ms}) == [
        *(0.0, 10.0, 12.8, 25.7, 40.0, 51.4, 80.0)
    ]
    counts = {uid: len({one.key[0] for one in exam if one.series_uid == uid}) for uid in assembly.series_uids}
    assert assemble_exam(shuffled, cards, known_counts=counts).state is AssemblyState.COMPLETE


def test_an_image_that_is_lost_is_named(exam: list[ImageFacts], cards: tuple[ProtocolCard, ...]) -> None:
    for series in assemble_exam(exam, cards).relaxometry:
        for time, row in zip(series.times_ms, series.grid, strict=True):
            number = int(np.random.default_rng(int(time)).integers(N_SLICES))
            assembly = assemble_exam([one for one in exam if one.key != row[number].key], cards)
            assert assembly.state is AssemblyState.INCOMPLETE
            named = {(one.slice_number, one.time_ms) for one in assembly.missing}
            assert named == {(number + 1, time)}, assembly.missing_text
            assert f"{time:g} ms at slice {number + 1}" in assembly.missing_text


def test_the_first_half_of_what_is_sent_is_never_measured(
    exam: list[ImageFacts], cards: tuple[ProtocolCard, ...]
) -> None:
    relaxometry = [one for one in exam if "MAPSS" in one.series_description]
    for seed in range(5):
        random.Random(seed).shuffle(relaxometry)
        assert not assemble_exam(relaxometry[: len(relaxometry) // 2], cards).is_complete


def test_one_echo_time_without_a_card_that_knows_the_order_is_refused(phantom: PhantomExam, tmp_path: Path) -> None:
    paths = write_exam(phantom, tmp_path, vendor="ge", one_echo_time=True)
    assembly = assemble_exam([one for path in paths for one in read_facts(path)], load_cards())
    assert assembly.state is AssemblyState.REFUSED
    assert [reason.code.value for reason in assembly.reasons] == ["ECHO_UNRESOLVED"]
    assert "in all 28 images" in assembly.reasons[0].detail


def test_the_wrong_cards_say_what_is_needed(exam: list[ImageFacts]) -> None:
    """A scanner for which there is no card is held, with what was seen; no card is tried on it."""
    cards = [card for card in load_cards() if card.name == "t2-fse"]
    assembly = assemble_exam([one for one in exam if "MAPSS" in one.series_description], cards)
    assert assembly.state is AssemblyState.UNKNOWN
    assert "MAPSS" in assembly.reasons[0].detail
