"""The built-in cards say what the scanners do; a faulty card is refused with file, key and what is allowed."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import config.protocol_cards
from config.protocol_cards import Match, Order, ProtocolCard, Role, ScalingRule, TimeRule, Times, load_cards
from config.settings import Section, SettingsError

BUILT_IN = {
    "ge-mapss",
    "ge-t1rho-fse",
    "philips-mapss",
    "philips-mapss-t1rho",
    "philips-mapss-t2",
    "siemens-mapss",
    "t2-fse",
}
EXAMPLES = Path(config.protocol_cards.__file__).parent / "protocols" / "examples"
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
    assert set(cards) == BUILT_IN
    assert cards["ge-t1rho-fse"].times.t1rho_ms == (0, 40, 80, 120)
    assert cards["ge-t1rho-fse"].times.t2_ms == ()
    assert cards["ge-t1rho-fse"].expected.max_slices == 1
    assert (cards["t2-fse"].role, cards["t2-fse"].times.distinct_ms) == (Role.ANATOMY, ())


def test_site_cards_join_or_replace_the_built_in_ones(site: Callable[..., Path]) -> None:
    folder = site()
    site({"name": "ge-mapss", "times.t1rho_ms": [0, 20, 60]}, file="other.yaml")
    cards = {card.name: card for card in load_cards(folder)}
    assert set(cards) == BUILT_IN | {"site-mapss"}
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
        ({"times.t1rho_ms": [0, 10, math.inf]}, "times.t1rho_ms.2", "finite number"),
        ({"times.t1rho_ms": [0, 10, math.nan]}, "times.t1rho_ms.2", "finite number"),
        ({"times.t2_ms": [0, 10.5, 40]}, "times", "closer than twice the tolerance"),
        ({"times.tolerance_ms": 9}, "times.tolerance_ms", "less than or equal to 5"),
        ({"times.t1rho_ms": None, "times.t2_ms": None}, "times", "every other rule needs"),
        ({"times.rule": "none"}, "times", "rule 'none' has no times"),
        ({"role": "anatomy"}, "(file)", "anatomy has none"),
        ({"expected.min_slices": 65}, "expected", "min_slices 65 is more than max_slices 64"),
        ({"expected.max_slices": 1000}, "expected.max_slices", "less than or equal to 200"),
        ({"scaling": None}, "scaling", "Field required"),
        ({"spin_lock_frequency_hz": 0}, "spin_lock_frequency_hz", "greater than 0"),
        ({"replaces": ["site-mapss"]}, "(file)", "replaces: names the card itself"),
        ({"replaces": ["ge-mapss", "ge-mapss"]}, "(file)", "replaces: names a card twice"),
        ({"replaces": ["ge-maps"]}, "replaces", "no such card: ge-maps; there are: ge-mapss, ge-t1rho-fse"),
        ({"together_with": ["site-mapss"]}, "(file)", "together_with: names the card itself"),
        ({"together_with": ["elsewhere"]}, "together_with", "no such card: elsewhere; there are: ge-mapss"),
        ({"together_with": ["ge-mapss"]}, "together_with", "ge-mapss is not together with site-mapss"),
        (
            {"together_with": ["ge-mapss"], "replaces": ["ge-mapss"]},
            "together_with",
            "names ge-mapss, which it replaces",
        ),
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


def test_philips_t1rho_and_t2_make_one_exam() -> None:
    cards = {card.name: card for card in load_cards()}
    for name, other in (("philips-mapss-t1rho", "philips-mapss-t2"), ("philips-mapss-t2", "philips-mapss-t1rho")):
        assert cards[name].together_with == (other,)
        assert cards[name].scaling is ScalingRule.PHILIPS_SCALE_SLOPE
        assert cards[name].times.rule is TimeRule.DESCRIPTION_LIST


def test_a_card_that_replaces_another_takes_its_place_in_the_exam(site: Callable[..., Path]) -> None:
    folder = site({"replaces": ["philips-mapss-t1rho"], "together_with": ["philips-mapss-t2"]})
    cards = {card.name: card for card in load_cards(folder)}
    assert set(cards) == (BUILT_IN | {"site-mapss"}) - {"philips-mapss-t1rho"}
    assert cards["philips-mapss-t2"].together_with == ("site-mapss",)
    assert cards["site-mapss"].together_with == ("philips-mapss-t2",)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (  # which of the two would the T2 scan wait for?
            {"replaces": ["philips-mapss-t1rho"], "together_with": ["philips-mapss-t2"]},
            {"name": "other", "replaces": ["philips-mapss-t1rho"], "together_with": ["philips-mapss-t2"]},
            "philips-mapss-t2.yaml: together_with: philips-mapss-t1rho is replaced by other and site-mapss; "
            "replace philips-mapss-t2 as well",
        ),
        (
            {"replaces": ["philips-mapss-t1rho"]},
            None,
            "philips-mapss-t2.yaml: together_with: site-mapss is not together with philips-mapss-t2",
        ),
        (
            {"replaces": ["ge-mapss"]},
            {"name": "other", "replaces": ["site-mapss"]},
            "card.yaml: replaces: site-mapss is itself replaced, by other",
        ),
    ],
)
def test_contradictions_between_cards_are_refused(
    site: Callable[..., Path], first: dict[str, object], second: dict[str, object] | None, message: str
) -> None:
    folder = site(first)
    if second is not None:
        site(second, file="another.yaml")
    with pytest.raises(SettingsError) as caught:
        load_cards(folder)
    assert message in str(caught.value)


def test_example_cards_are_in_order_and_used_only_where_copied_to() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.yaml")}
    assert names == {"ge-mapss-one-echo-time", "siemens-t1rho-inversion-time"}
    assert names.isdisjoint(card.name for card in load_cards())
    loaded = {card.name: card for card in load_cards(EXAMPLES)}
    assert names < set(loaded)
    assert loaded["ge-mapss-one-echo-time"].times.rule is TimeRule.ACQUISITION_ORDER
    assert "ge-mapss" not in loaded  # two cards would match


def test_a_verbose_pattern_is_kept_without_its_space_and_comments(site: Callable[..., Path]) -> None:
    pattern = "(?x)^T1 [ _#]? RHO  # as written\n  \\ [])( #]{2} (?: \\d+ | \\# )"
    card = next(card for card in load_cards(site({"match.series_description": pattern})) if card.name == "site-mapss")
    compact = card.match.series_description
    assert compact == r"^T1[ _#]?RHO\ [])( #]{2}(?:\d+|\#)"
    for text in ("T1_RHO ))17", "T1RHO ##5", "T1 RHO ])#", "T1RHO", "T1 [ RHO))1"):
        assert bool(re.search(pattern, text)) == bool(re.search(compact, text))


def test_every_built_in_card_says_in_words_what_it_is_for() -> None:
    assert all(card.match_in_words for card in load_cards())


PHILIPS, SIEMENS, GE = "Philips Medical Systems", "SIEMENS", "GE MEDICAL SYSTEMS"


@pytest.mark.parametrize(
    ("manufacturer", "description", "name", "t1rho", "t2"),
    [
        ("Philips", "MAPSS TSL 0_10_40_80 ms", "philips-mapss-t1rho", "0_10_40_80", None),
        (PHILIPS, "WIP 3DMAPPS SL 0_10_40_80ms", "philips-mapss-t1rho", "0_10_40_80", None),
        (PHILIPS, "T1rho_SL_0_10_40_80ms", "philips-mapss-t1rho", "0_10_40_80", None),
        (PHILIPS, "T1rho SL 0/10/40/80", "philips-mapss-t1rho", "0/10/40/80", None),
        (PHILIPS, "3dmapps t1rho tsl0,10,40,80", "philips-mapss-t1rho", "0,10,40,80", None),
        (PHILIPS, "T1rho FSL500 TSL 0-10-40-80ms TE 2.1 3D", "philips-mapss-t1rho", "0-10-40-80", None),
        (PHILIPS, "TSL 0_10_40_80 ms", "philips-mapss-t1rho", "0_10_40_80", None),
        (PHILIPS, "3D_T1rho_0_10_40_80ms", "philips-mapss-t1rho", "0_10_40_80", None),
        (PHILIPS, "T1rho TSLs 0 10 40 80 ms", "philips-mapss-t1rho", "0 10 40 80", None),
        (PHILIPS, "MAPSS T2 0_12.8_25.7_51.4 ms", "philips-mapss-t2", None, "0_12.8_25.7_51.4"),
        (PHILIPS, "T2prep_0_12.8_25.7_51.4ms", "philips-mapss-t2", None, "0_12.8_25.7_51.4"),
        (PHILIPS, "T2 TE 0_12.8_25.7_51.4 ms", "philips-mapss-t2", None, "0_12.8_25.7_51.4"),
        (PHILIPS, "MAPSS TSL 0_10_40_80 T2 0_12.8_25.7_51.4", "philips-mapss", "0_10_40_80", "0_12.8_25.7_51.4"),
        (PHILIPS, "MAPSS T2prep TE 0_12.8_25.7_51.4 ms", "philips-mapss-t2", None, "0_12.8_25.7_51.4"),
        (PHILIPS, "3DMAPPS TE 0_12.8_25.7_51.4ms", "philips-mapss-t2", None, "0_12.8_25.7_51.4"),
        (PHILIPS, "MAPSS TSL 0_10_40_80 ms TE 12.8_25.7_51.4", "philips-mapss", "0_10_40_80", "12.8_25.7_51.4"),
        (PHILIPS, "T2W_TSE_SAG", "t2-fse", None, None),
        (PHILIPS, "sT2W_TSE", "t2-fse", None, None),
        (SIEMENS, "MAPSS TSL 40", "siemens-mapss", "40", None),
        (SIEMENS, "T1rho_TSL40ms", "siemens-mapss", "40", None),
        ("Siemens Healthineers", "t1rho SL=80 ms", "siemens-mapss", "80", None),
        (SIEMENS, "T1rho 40 ms", "siemens-mapss", "40", None),
        (SIEMENS, "T1rho-TSL-40", "siemens-mapss", "40", None),
        (SIEMENS, "TSL40", "siemens-mapss", "40", None),
        (SIEMENS, "T2prep-12.8", "siemens-mapss", None, "12.8"),
        (SIEMENS, "t1rho_mapss_tsl_80 1mm", "siemens-mapss", "80", None),
        (SIEMENS, "MAPSS T2 TE=25.7", "siemens-mapss", None, "25.7"),
        (SIEMENS, "MAPSS T2 51.4", "siemens-mapss", None, "51.4"),
        (SIEMENS, "MAPSS_prepTE_12.8", "siemens-mapss", None, "12.8"),
        (SIEMENS, "MAPSS T2prep TE 12.8", "siemens-mapss", None, "12.8"),
        (SIEMENS, "MAPSS_T2prep_51.4ms", "siemens-mapss", None, "51.4"),
        (SIEMENS, "T1rho TSL 40 TE 2.1", "siemens-mapss", "40", None),  # the TE is the read-out's
        (SIEMENS, "t2_spc_sag_p2_iso", "t2-fse", None, None),
        (GE, "3DMAPPS", "ge-mapss", None, None),
        (GE, "Sag T2 CUBE", "t2-fse", None, None),
    ],
)
def test_names_that_sites_give_series_are_known_to_one_card(
    manufacturer: str, description: str, name: str, t1rho: str | None, t2: str | None
) -> None:
    fitting = _fitting(manufacturer, description)
    assert [card.name for card in fitting] == [name]
    times = fitting[0].times
    for pattern, expected in ((times.t1rho_pattern, t1rho), (times.t2_pattern, t2)):
        found = re.search(pattern, description, re.IGNORECASE) if pattern else None
        assert (found and found[1]) == expected


@pytest.mark.parametrize(
    ("manufacturer", "description"),
    [
        # real ones
        (PHILIPS, "fcMRI Field Mapping"),
        (PHILIPS, "B0 NS"),
        (SIEMENS, "2D 16Echo qT2"),
        (SIEMENS, "Product EPI Sag Ascending"),
        (SIEMENS, "REST1 w SMS PF7-8"),
        (SIEMENS, "gre_field_magph"),
        (SIEMENS, "DTI"),
        # what scanners calculate, and what is measured otherwise
        (PHILIPS, "T1rho map TSL 0_10_40_80"),
        (GE, "MAPSS T1rho map"),
        (GE, "T1rho FSE MAP"),
        (PHILIPS, "T2 map TE 10_20_30_40"),
        (PHILIPS, "T2 TSE TE 20_40_60_80 map"),
        (PHILIPS, "T2 TE 10_20_30_40"),
        (PHILIPS, "MAPSS 0_10_40_80"),
        (PHILIPS, "DWI b 0_500_1000"),
        (SIEMENS, "t2_tse_map_sag"),
        (SIEMENS, "T2* TSE"),
        # not enough to know the times
        (PHILIPS, "MAPSS T1rho"),
        (PHILIPS, "T1rho SL 40"),
        (SIEMENS, "MAPSS"),
        (SIEMENS, "MAPSS TSL 0_10_40_80 ms"),
        (SIEMENS, "MAPSS TSL 0 10 40 80"),
        (SIEMENS, "MAPSS TSL 0-10-40-80"),
        (SIEMENS, "MAPSS T2prep TE 51,4"),
        (SIEMENS, "MAPSS T2prep TE 51_4"),
        (SIEMENS, "MAPSS T2prep TE 12p8"),
        (SIEMENS, "t1_tse_sag SL 4mm"),
        (SIEMENS, "T1rho 300Hz"),
        ("", "MAPSS TSL 40"),
    ],
)
def test_other_series_are_known_to_no_card(manufacturer: str, description: str) -> None:
    assert _fitting(manufacturer, description) == []


@pytest.mark.parametrize("description", ["MAPSS T2prep TE 12.8 TE 25.7", "MAPSS T2prep 12.8 TE 2.1", "T1rho 2 TSL"])
def test_a_siemens_name_with_two_times_or_without_one_names_none(description: str) -> None:
    times = next(card for card in load_cards() if card.name == "siemens-mapss").times
    for pattern in (times.t1rho_pattern, times.t2_pattern):
        assert pattern is not None
        assert re.search(pattern, description, re.IGNORECASE) is None


def _fitting(manufacturer: str, description: str) -> list[ProtocolCard]:
    return [
        card
        for card in load_cards()
        if all(
            pattern is None or re.search(pattern, text, re.IGNORECASE)
            for pattern, text in (
                (card.match.manufacturer, manufacturer),
                (card.match.series_description, description),
            )
        )
    ]


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["(?x)[", "0_10", "none", "ge-mapss", "us"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["key", "group", "times_ms"]), inner),
    max_leaves=6,
)


def _changes(model: type[Section]) -> st.SearchStrategy[dict[str, object]]:
    return st.dictionaries(st.sampled_from([*model.model_fields, "colour"]), _VALUES, max_size=2)


@settings(max_examples=100, deadline=None)
@given(
    card=_changes(ProtocolCard),
    times=_changes(Times),
    match=_changes(Match),
    order=_changes(Order),
    nested=st.booleans(),
)
def test_whatever_stands_in_a_card_it_is_loaded_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    card: dict[str, object],
    times: dict[str, object],
    match: dict[str, object],
    order: dict[str, object],
    nested: bool,
) -> None:
    folder = tmp_path_factory.mktemp("cards")
    changed = {**CARD, "times": {**CARD["times"], **times}, "match": {**CARD["match"], **match}, **card}
    if nested and isinstance(changed["times"], dict):
        changed["times"] |= {
            "rule": "acquisition_order",
            "order": {"times_ms": [0, 10, 12.8, 25.7, 40, 51.4, 80], **order},
        }
    (folder / "card.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
    try:
        loaded = load_cards(folder)
    except SettingsError:
        return  # any other exception is a bug
    known = next(one for one in loaded if one.name == changed["name"])
    assert all(math.isfinite(time) and time >= 0 for time in known.times.distinct_ms)
    assert not known.times.order or sorted(known.times.order.times_ms) == list(known.times.distinct_ms)
