"""The built-in cards say what the scanners do; a faulty card is refused with file, key and what is allowed."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from config.protocol_cards import Role, ScalingRule, TimeRule, load_cards
from config.settings import SettingsError

CARD = {
    "name": "site-mapss",
    "description": "a card for tests",
    "role": "relaxometry",
    "match": {"manufacturer": "^GE"},
    "times": {"rule": "echo_time", "t1rho_ms": [0, 10, 40, 80], "t2_ms": [0, 12.8, 25.7, 51.4]},
    "expected": {"min_slices": 3, "max_slices": 64},
    "scaling": "raw",
}


@pytest.fixture
def site(tmp_path: Path) -> Callable[..., Path]:
    """Writes a card, changed at dotted keys (None removes), and gives its folder."""

    def write(changes: dict[str, object] | None = None, *, file: str = "card.yaml") -> Path:
        card = yaml.safe_load(yaml.safe_dump(CARD))
        for key, value in (changes or {}).items():
            *path, last = key.split(".")
            place = card
            for part in path:
                place = place[part]
            if value is None:
                del place[last]
            else:
                place[last] = value
        (tmp_path / file).write_text(yaml.safe_dump(card), encoding="utf-8")
        return tmp_path

    return write


def test_built_in_mapss_is_the_combined_scan_of_the_paper() -> None:
    card = next(card for card in load_cards() if card.name == "ge-mapss")
    assert card.role is Role.RELAXOMETRY
    assert card.times.rule is TimeRule.ECHO_TIME
    assert card.times.t1rho_ms == (0, 10, 40, 80)
    assert card.times.t2_ms == (0, 12.8, 25.7, 51.4)
    assert card.times.distinct_ms == (0, 10, 12.8, 25.7, 40, 51.4, 80)
    assert card.spin_lock_frequency_hz == 300


def test_built_in_single_slice_t1rho_and_anatomy() -> None:
    cards = {card.name: card for card in load_cards()}
    assert set(cards) == {"ge-mapss", "ge-t1rho-fse", "t2-fse"}
    assert cards["ge-t1rho-fse"].times.t1rho_ms == (0, 40, 80, 120)
    assert cards["ge-t1rho-fse"].times.t2_ms == ()
    assert cards["ge-t1rho-fse"].expected.max_slices == 1
    assert (cards["t2-fse"].role, cards["t2-fse"].times.distinct_ms) == (Role.ANATOMY, ())


def test_site_cards_join_or_replace_the_built_in_ones(site: Callable[..., Path]) -> None:
    folder = site()
    site({"name": "ge-mapss", "times.t1rho_ms": [0, 20, 60]}, file="other.yaml")
    cards = {card.name: card for card in load_cards(folder)}
    assert set(cards) == {"ge-mapss", "ge-t1rho-fse", "t2-fse", "site-mapss"}
    assert cards["ge-mapss"].times.t1rho_ms == (0, 20, 60)
    assert cards["site-mapss"].scaling is ScalingRule.RAW
    assert next(card for card in load_cards() if card.name == "ge-mapss").times.t1rho_ms == (0, 10, 40, 80)


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"colour": 1}, "colour", "unknown key; allowed here: description, expected"),
        ({"times.units": "ms"}, "times.units", "unknown key; allowed here: element, order, rule, t1rho_ms"),
        ({"match.vendor": "GE"}, "match.vendor", "unknown key; allowed here: device_serial_number, manufacturer"),
        ({"role": "fun"}, "role", "'relaxometry' or 'anatomy' (found 'fun')"),
        ({"scaling": "guess"}, "scaling", "'philips_scale_slope' or 'raw' (found 'guess')"),
        ({"times.rule": "order"}, "times.rule", "'element' or 'none' (found 'order')"),
        ({"name": "No Spaces"}, "name", "pattern"),
        ({"match.manufacturer": "(GE"}, "match.manufacturer", "not a regular expression"),
        ({"match": {}}, "match", "at least one of"),
        ({"times.t1rho_ms": [0, 10]}, "times", "at least three"),
        ({"times.t1rho_ms": [0, 40, 10]}, "times", "increasing"),
        ({"times.t1rho_ms": [-1, 40, 80]}, "times", "non-negative"),
        ({"times.t2_ms": [0, 10.5, 40]}, "times", "closer than twice the tolerance"),
        ({"times.tolerance_ms": 9}, "times.tolerance_ms", "less than or equal to 5"),
        ({"times.t1rho_ms": None, "times.t2_ms": None}, "times", "every other rule needs"),
        ({"times.rule": "none"}, "times", "rule 'none' has no times"),
        ({"role": "anatomy"}, "(file)", "anatomy has none"),
        ({"expected.min_slices": 65}, "expected", "min_slices 65 is more than max_slices 64"),
        ({"expected.max_slices": 1000}, "expected.max_slices", "less than or equal to 200"),
        ({"scaling": None}, "scaling", "Field required"),
        ({"spin_lock_frequency_hz": 0}, "spin_lock_frequency_hz", "greater than 0"),
    ],
)
def test_faulty_cards_name_file_key_and_what_is_allowed(
    site: Callable[..., Path], changes: dict[str, object], key: str, message: str
) -> None:
    folder = site(changes)
    with pytest.raises(SettingsError) as caught:
        load_cards(folder)
    assert str(caught.value).startswith(f"{folder}/card.yaml: {key}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"), [(b"a: [1\n", "is not YAML"), (b"\xff\xfa", "is not YAML"), (b"", "dictionary")]
)
def test_files_that_are_no_cards_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "card.yaml").write_bytes(content)
    with pytest.raises(SettingsError, match=message):
        load_cards(tmp_path)


def test_two_cards_of_one_name_are_refused(site: Callable[..., Path]) -> None:
    folder = site()
    site(file="copy.yaml")
    with pytest.raises(SettingsError, match=r"copy\.yaml|card\.yaml") as caught:
        load_cards(folder)
    assert "'site-mapss' is also the name of" in str(caught.value)


def test_absent_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent: protocols_dir: no such folder"):
        load_cards(tmp_path / "absent")
