import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from small_mr_exam import MAPSS_TIMES_MS, fse_facts, image_facts, mapss_facts

from config.protocol_cards import ProtocolCard, load_cards
from config.settings import SettingsError
from dicom_io.headers import ImageFacts
from dicom_io.protocol_draft import CardDraft, draft_cards
from processing.refusal import ReasonCode, UnsuitableInput

CARDS = load_cards()


def draft_of(facts: list[ImageFacts], **options: object) -> CardDraft:
    (draft,) = draft_cards(facts, CARDS, **options)  # type: ignore[arg-type]
    return draft


def filled(draft: CardDraft, **values: object) -> ProtocolCard:
    """The card when a person has written ``values`` for the open keys (by their last part); None deletes the line."""
    text = draft.text
    for key, value in values.items():
        line = "" if value is None else rf"\g<1>{key}: {value}\n"
        text, n = re.subn(rf"(?m)^( *){key}: TODO.*\n", line, text)
        assert n == 1, key
    return ProtocolCard.model_validate(yaml.safe_load(text))


def per_series(descriptions: dict[str, float], n_slices: int = 3) -> list[ImageFacts]:
    """A site's exam with one series for each time."""
    return [
        image_facts(
            sop_instance_uid=f"1.2.{series}.{index}",
            series_uid=f"1.2.{series}",
            series_number=series,
            manufacturer="SIEMENS",
            series_description=text,
            echo_time_ms=3.1,
            position=(4.0 * index, 0.0, 0.0),
        )
        for series, text in enumerate(descriptions, start=1)
        for index in range(n_slices)
    ]


def philips(
    n_slices: int = 3, times: tuple[float, ...] = (0.0, 10.0, 40.0, 80.0), **changes: object
) -> list[ImageFacts]:
    return [
        image_facts(
            **{
                "sop_instance_uid": f"1.2.{index}.{k}",
                "manufacturer": "Philips",
                "series_description": "sag TSL 0_10_40_80 ms",
                "echo_time_ms": 2.3,
                "trigger_time_ms": time,
                "instance_number": len(times) * index + k + 1,
                "position": (4.0 * index, 0.0, 0.0),
                "scale_slope": 0.01 * (k + 1),
                **changes,
            }
        )
        for index in range(n_slices)
        for k, time in enumerate(times)
    ]


def test_a_card_with_a_todo_is_refused_by_name(tmp_path: Path) -> None:
    draft = draft_of(mapss_facts(3), name="my-mapss")
    assert draft.open_keys == ("times.t1rho_ms", "times.t2_ms", "spin_lock_frequency_hz")
    (tmp_path / "my.yaml").write_text(draft.text)
    with pytest.raises(SettingsError, match=r"my\.yaml: times\.t1rho_ms"):
        load_cards(tmp_path)


def test_a_filled_card_replaces_the_one_that_fitted(tmp_path: Path) -> None:
    draft = draft_of(mapss_facts(3))
    card = filled(draft, t1rho_ms=[0, 10, 40, 80], t2_ms=[0, 12.8, 25.7, 51.4], spin_lock_frequency_hz=300)
    assert card.replaces == ("ge-mapss",)
    assert card.times.distinct_ms == MAPSS_TIMES_MS
    assert (card.expected.min_slices, card.expected.max_slices) == (3, 3)


def test_a_draft_under_the_name_of_a_card_does_not_replace_itself() -> None:
    assert "replaces" not in draft_of(mapss_facts(3), name="ge-mapss").text


def test_echo_times_of_a_scan_that_says_t1rho_are_written_down() -> None:
    times = {0.0: 0, 10.0: 1, 40.0: 2}
    facts = [one for one in mapss_facts(3, series_description="T1rho cubequant (a+b)") if one.echo_time_ms in times]
    draft = draft_of(facts)
    assert draft.open_keys == ("spin_lock_frequency_hz",)
    card = filled(draft, spin_lock_frequency_hz=None)
    assert card.times.t1rho_ms == (0, 10, 40)
    assert re.search(card.match.series_description or "?", "T1rho cubequant (a+b)")
    assert not re.search(card.match.series_description or "?", "T1rho cubequant aab")


def test_times_that_lie_close_get_a_tolerance_that_tells_them_apart() -> None:
    facts = [
        replace(one, echo_time_ms=8.0 + 0.9 * (one.echo_numbers[0] - 1), series_description="T2 map multi echo")
        for one in mapss_facts(3)
    ]
    assert filled(draft_of(facts)).times.tolerance_ms == pytest.approx(0.36)


def test_a_list_in_the_description_that_trigger_time_confirms() -> None:
    draft = draft_of(philips())
    card = filled(draft, spin_lock_frequency_hz=500)
    assert str(card.times.rule) == "description_list"
    assert card.times.t1rho_ms == (0, 10, 40, 80)
    found = re.search(card.times.t1rho_pattern or "?", "sag TSL 0_10_40_80 ms")
    assert found is not None
    assert found[1] == "0_10_40_80"
    assert str(card.scaling) == "philips_scale_slope"


def test_a_list_that_trigger_time_does_not_confirm_is_not_believed() -> None:
    draft = draft_of(philips(times=(0.0, 11.0, 40.0, 80.0)))
    assert "rule: acquisition_order" in draft.text
    assert "times.times_ms" in draft.open_keys


def test_philips_without_scale_slope_leaves_the_scaling_open() -> None:
    assert "scaling" in draft_of(philips(scale_slope=None)).open_keys


def test_one_series_for_each_time() -> None:
    facts = per_series({f"t1rho TSL {time} ms": time for time in (0, 10, 40, 80)})
    card = filled(draft_of(facts), spin_lock_frequency_hz=None)
    assert str(card.times.rule) == "series_description"
    assert card.times.t1rho_ms == (0, 10, 40, 80)
    for one in facts:
        assert re.search(card.match.series_description or "?", one.series_description)
        found = re.search(card.times.t1rho_pattern or "?", one.series_description)
        assert found is not None
        assert float(found[1]) in card.times.t1rho_ms


def test_spin_lock_and_echo_times_in_series_of_one_scan() -> None:
    facts = per_series(
        {f"spine TSL {t}": t for t in (0, 10, 40, 80)} | {f"spine TE {t}": t for t in (12.8, 25.7, 51.4)}
    )
    draft = draft_of(facts)
    assert draft.open_keys == ("times.t2_ms", "spin_lock_frequency_hz")
    card = filled(draft, t2_ms=[0, 12.8, 25.7, 51.4], spin_lock_frequency_hz=500)
    assert all(re.search(card.match.series_description or "?", one.series_description) for one in facts)


def test_where_nothing_tells_a_time_the_order_is_asked_for() -> None:
    draft = draft_of(mapss_facts(3, echo_time_ms=5.0))
    card = filled(
        draft,
        t1rho_ms=[0, 10, 40, 80],
        t2_ms=[0, 12.8, 25.7, 51.4],
        times_ms=list(MAPSS_TIMES_MS),
        spin_lock_frequency_hz=None,
    )
    assert card.times.order is not None
    assert card.times.order.fastest == "time"


def test_anatomy_is_drafted_where_there_is_nothing_else() -> None:
    draft = draft_of(fse_facts(5, series_description="STIR sag"))
    assert draft.open_keys == ()
    assert str(filled(draft).role) == "anatomy"


def test_scans_of_which_nothing_is_known_leave_open_whether_they_belong_together() -> None:
    second = [
        replace(one, series_uid="1.9", sop_instance_uid=f"1.9.{i}", series_description="T2 prep x")
        for i, one in enumerate(mapss_facts(3))
    ]
    drafts = draft_cards([*mapss_facts(3), *second], CARDS, name="mine")
    assert [draft.name for draft in drafts] == ["mine-1", "mine-2"]
    assert "together_with" in drafts[0].open_keys
    assert "mine-2" in drafts[0].text


def test_scans_of_t1rho_and_of_t2_belong_together() -> None:
    second = philips(
        series_uid="1.9", series_description="T2prep TE 0_10_40_80 ms", acquisition_number=2, series_number=6
    )
    second = [replace(one, sop_instance_uid=f"1.9.{index}") for index, one in enumerate(second)]
    first, other = draft_cards([*philips(), *second], CARDS, name="mine")
    assert "together_with: [mine-2]" in first.text
    assert "together_with: [mine-1]" in other.text


def test_a_description_that_names_a_person_is_not_written() -> None:
    facts = mapss_facts(3, series_description="Doe John MAPSS")
    draft = draft_of(facts, name="mine", private_texts={"Doe John MAPSS"})
    assert "Doe" not in draft.text
    assert "match.series_description" in draft.open_keys


def test_odd_texts_stay_comments_and_scalars() -> None:
    facts = mapss_facts(3, series_description="a'b\n  rule: none # MAPSS", protocol_name="x\ny: 1")
    content = yaml.safe_load(draft_of(facts, name="odd").text)
    assert "y" not in content
    assert re.search(content["match"]["series_description"], facts[0].series_description)


def test_nothing_to_describe_is_a_refusal() -> None:
    with pytest.raises(UnsuitableInput) as caught:
        draft_cards([image_facts(image_type=("LOCALIZER",))], CARDS)
    assert caught.value.reason.code is ReasonCode.PROTOCOL_UNKNOWN


@pytest.mark.parametrize("description", ["T1rho research", "3DMAPPS T1rho"])
def test_all_seven_times_of_a_combined_scan_were_drafted_as_spin_lock_times(description: str) -> None:
    draft = draft_of(mapss_facts(3, series_description=description))
    assert draft.open_keys == ("times.t1rho_ms", "times.t2_ms", "spin_lock_frequency_hz")
