"""Whatever headers say, explaining and drafting end without an error other than the named refusal."""

from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from small_mr_exam import image_facts

from config.protocol_cards import load_cards
from dicom_io.headers import ImageFacts
from dicom_io.protocol_draft import draft_cards
from dicom_io.protocol_explanation import explain_exam
from dicom_io.protocol_needs import needs_of
from processing.refusal import UnsuitableInput
from service.protocol_command import as_json, as_lines

CARDS = load_cards()
TEXTS = st.sampled_from(
    (
        "",
        "MAPSS T1rho T2",
        "MAPSS TSL 0_10_40_80 ms",
        "MAPSS TSL 40",
        "MAPSS TE 12.8",
        "T1rho FSE",
        "SAG T2 TSE",
        "a'b\n#",
    )
) | st.text(max_size=12)
NUMBERS = st.none() | st.sampled_from((0.0, 10.0, 12.8, 40.0, 80.0, 5.0)) | st.floats(allow_nan=False, width=32)
SMALL = st.none() | st.integers(-2, 5)
PLACES = st.sampled_from(((), (20.0, 0.0, 0.0), (16.0, 0.0, 0.0), (12.0, 0.0, 0.0), (0.0, 0.0, 16.0)))
FACTS = st.fixed_dictionaries(
    {
        "sop_instance_uid": st.integers(1, 40).map(lambda number: f"1.2.{number}"),
        "series_uid": st.sampled_from(("1.3.1", "1.3.2", "1.3.3")),
        "study_uid": st.sampled_from(("1.2.3", "1.2.4")),
        "pixel_sha256": st.sampled_from(("a" * 64, "b" * 64)),
        "manufacturer": st.sampled_from(("GE MEDICAL SYSTEMS", "Philips", "SIEMENS", "", "Hyperfine")),
        "series_description": TEXTS,
        "protocol_name": TEXTS,
        "image_type": st.sampled_from(((), ("ORIGINAL", "PRIMARY", "M"), ("ORIGINAL", "PRIMARY", "P"), ("LOCALIZER",))),
        "frame_number": st.none() | st.integers(1, 3),
        "echo_time_ms": NUMBERS,
        "trigger_time_ms": NUMBERS,
        "inversion_time_ms": NUMBERS,
        "rescale_slope": NUMBERS,
        "scale_slope": NUMBERS,
        "series_number": SMALL,
        "instance_number": SMALL,
        "acquisition_number": SMALL,
        "temporal_position": SMALL,
        "images_in_acquisition": SMALL,
        "position": PLACES,
        "orientation": st.sampled_from(
            ((), (0.0, 1.0, 0.0, 0.0, 0.0, -1.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (1.0,) * 6)
        ),
    }
).map(lambda values: image_facts(**values))


@settings(max_examples=150, deadline=None)
@given(st.lists(FACTS, max_size=14))
def test_any_images_can_be_explained(facts: list[ImageFacts]) -> None:
    explanation = explain_exam(facts, CARDS)
    assert sum(len(series.images) for series in explanation.series) == len(facts)
    assert bool(needs_of(explanation)) != explanation.is_accepted
    for each_image in (False, True):
        assert as_lines(explanation, [Path()], each_image=each_image)
    assert len(as_json(explanation, [Path()])["series"]) == len(explanation.series)


@settings(max_examples=150, deadline=None)
@given(st.lists(FACTS, min_size=1, max_size=14))
def test_any_images_give_a_draft_that_is_yaml_or_a_refusal(facts: list[ImageFacts]) -> None:
    try:
        drafts = draft_cards(facts, CARDS)
    except UnsuitableInput:
        return
    for draft in drafts:
        content = yaml.safe_load(draft.text)
        assert set(content) <= {
            "name", "description", "role", "match", "times", "expected", "scaling", "spin_lock_frequency_hz",
            "together_with", "replaces",
        }  # fmt: skip
