import numpy as np
import pytest
from straight_spine import SPACING_MM, Spine, paint

from processing.levels import NamedDiscs, name_discs
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import Level


def named(spine: Spine, lowest_disc: Level | None = None) -> dict[Level, float]:
    """Level -> mean row of its territory."""
    territory = name_discs(spine.probability(), SPACING_MM, lowest_disc=lowest_disc).territory
    return {
        Level(int(level)): float(np.argwhere(territory == level)[:, 1].mean())
        for level in np.unique(territory)
        if level
    }


@pytest.mark.parametrize("slices", [1, 2, 5])
def test_discs_are_named_upwards_from_the_sacrum(slices: int) -> None:
    found = named(Spine(slices=slices))
    assert list(found) == [Level.L5S1, Level.L4L5, Level.L3L4, Level.L2L3, Level.L1L2, Level.T12L1][: len(found)]
    assert len(found) >= 5
    assert found[Level.L5S1] == pytest.approx(195.5, abs=2)
    assert list(found.values()) == sorted(found.values(), reverse=True)


@pytest.mark.parametrize("missing", [2, 3, 4])
def test_a_missed_disc_leaves_its_level_empty(missing: int) -> None:
    complete, gapped = named(Spine()), named(Spine(missing=(missing,)))
    assert set(complete) - set(gapped) == {Level(missing)}
    assert all(gapped[level] == pytest.approx(complete[level], abs=1.0) for level in gapped)


@pytest.mark.parametrize("length_mm", [12.0, 18.0, 32.0])
def test_a_disc_inside_the_sacrum_is_not_l5s1(length_mm: float) -> None:
    found = named(Spine(sacral_disc_mm=length_mm, lowest_row=170))
    assert found[Level.L5S1] == pytest.approx(175.5, abs=2)


def test_a_missed_lowest_disc_is_not_covered_up() -> None:
    with pytest.raises(UnsuitableInput) as refused:
        named(Spine(missing=(1,)))
    assert refused.value.reason.code is ReasonCode.LEVELS_AMBIGUOUS


def test_without_sacrum_no_names_are_given() -> None:
    with pytest.raises(UnsuitableInput, match="L5S1 is out of view or was missed") as refused:
        named(Spine(with_sacrum=False))
    assert refused.value.reason.code is ReasonCode.LEVELS_AMBIGUOUS


def test_too_little_picture_below_the_lowest_disc_is_ambiguous() -> None:
    with pytest.raises(UnsuitableInput, match="in view below the lowest disc") as refused:
        named(Spine(lowest_row=232))
    assert refused.value.reason.code is ReasonCode.LEVELS_AMBIGUOUS


def test_a_person_may_say_which_disc_is_the_lowest() -> None:
    found = named(Spine(with_sacrum=False, discs=5), lowest_disc=Level.L4L5)
    assert list(found)[:4] == [Level.L4L5, Level.L3L4, Level.L2L3, Level.L1L2]


def test_two_discs_are_too_few() -> None:
    with pytest.raises(UnsuitableInput) as refused:
        named(Spine(discs=2))
    assert refused.value.reason.code is ReasonCode.SEGMENTATION_UNCERTAIN


def test_fragments_of_one_disc_are_one_disc() -> None:
    probability = Spine().probability()
    whole = name_discs(probability, SPACING_MM).territory
    middle = np.argwhere(whole == Level.L3L4)[:, 1].mean().round().astype(int)
    probability[1, :, middle - 8 : middle + 9, 118:123] = 0.6  # a faint middle, as a vacuum or a cleft leaves
    split = name_discs(probability, SPACING_MM).territory
    assert set(np.unique(split)) == set(np.unique(whole))
    for level in (Level.L4L5, Level.L2L3):
        assert np.array_equal(split == level, whole == level)


def test_bright_bowel_away_from_bone_is_not_a_disc() -> None:
    probability = Spine().probability()
    expected = name_discs(probability, SPACING_MM).territory
    probability[:, :, 150:162, 20:60] = 0.01
    probability[1, :, 150:162, 20:60] = 0.96
    assert np.array_equal(name_discs(probability, SPACING_MM).territory, expected)


def test_a_vessel_beside_the_spine_in_one_slice_is_not_a_disc() -> None:
    """A bright vessel in front of a vertebra, with what looks like bone around it, once took the name of L2L3."""
    probability = Spine().probability()
    expected = name_discs(probability, SPACING_MM).territory
    between = (slice(120, 132), slice(50, 82))
    probability[:, 4, 105:147, 45:87] = np.array([0.02, 0.02, 0.92, 0.02, 0.02])[:, None, None]
    probability[:, 4, *between] = np.array([0.02, 0.92, 0.02, 0.02, 0.02])[:, None, None]
    assert np.array_equal(name_discs(probability, SPACING_MM).territory, expected)


def test_a_false_disc_inside_a_vertebra_makes_the_names_ambiguous() -> None:
    probability = Spine().probability()
    probability[:, :, 126:134, 100:145] = np.array([0.02, 0.92, 0.02, 0.02, 0.02])[:, None, None, None]
    with pytest.raises(UnsuitableInput, match="mm apart") as refused:
        name_discs(probability, SPACING_MM)
    assert refused.value.reason.code is ReasonCode.LEVELS_AMBIGUOUS


def test_a_short_lowest_disc_may_belong_to_a_transitional_vertebra() -> None:
    """SPIDER's patient 142: a well-formed S1S2 disc below a square S1 once shifted every name."""
    probability = Spine().probability()
    probability[:, :, 190:202, 100:113] = np.array([0.02, 0.02, 0.92, 0.02, 0.02])[:, None, None, None]
    with pytest.raises(UnsuitableInput, match="transitional") as refused:
        name_discs(probability, SPACING_MM)
    assert refused.value.reason.code is ReasonCode.LEVELS_AMBIGUOUS


def refusal_of(probability: np.ndarray) -> UnsuitableInput:
    with pytest.raises(UnsuitableInput) as refused:
        name_discs(probability, SPACING_MM)
    return refused.value


def rows_of(named: NamedDiscs) -> dict[int, float]:
    found = named.territory
    return {int(level): float(np.argwhere(found == level)[:, 1].mean()) for level in np.unique(found) if level}


def test_a_bridge_in_front_of_a_vertebra_does_not_make_one_disc_of_two() -> None:
    """An osteophyte or a bright vessel that joins L4L5 and L3L4 in one slice."""
    expected = rows_of(name_discs(Spine().probability(), SPACING_MM))
    joined = Spine().probability()
    paint(joined, (slice(2, 3), slice(104, 160), slice(96, 101)), 1)
    found = rows_of(name_discs(joined, SPACING_MM))
    assert list(found) == list(expected)
    assert all(found[level] == pytest.approx(expected[level], abs=3.0) for level in found)


def test_discs_that_meet_between_slices_are_parted() -> None:
    """In scoliosis the next slice may show the neighbouring disc at the same pixel."""
    probability = Spine().probability()
    expected = rows_of(name_discs(probability, SPACING_MM))
    for k, shift in enumerate((-18, -9, 0, 9, 18)):
        probability[:, k] = np.roll(probability[:, k], shift, axis=1)
        probability[:, k, : max(0, shift)] = Spine().probability()[:, k, :1]
    paint(probability, (slice(None), slice(217, 256), slice(100, 145)), 3)
    found = rows_of(name_discs(probability, SPACING_MM))
    assert list(found)[:5] == list(expected)[:5]
    assert all(found[level] == pytest.approx(expected[level], abs=3.0) for level in list(found)[:4])


def test_a_small_core_in_the_gap_is_the_missed_disc_and_is_to_be_checked() -> None:
    complete = rows_of(name_discs(Spine().probability(), SPACING_MM))
    probability = Spine(missing=(3,)).probability()
    row = int(complete[Level.L3L4])
    paint(probability, (slice(None), slice(row - 3, row + 3), slice(110, 122)), 1)
    named = name_discs(probability, SPACING_MM)
    assert list(rows_of(named)) == list(complete)
    assert rows_of(named)[Level.L3L4] == pytest.approx(row, abs=2)
    assert [reason.detail for reason in named.doubts] == ["L3L4: only parts of the disc are recognised"]


def test_a_small_core_between_neighbours_makes_the_names_ambiguous() -> None:
    """It may be a thin disc above a collapsed vertebra, which would shift all names above."""
    probability = Spine().probability()
    paint(probability, (slice(None), slice(127, 133), slice(110, 122)), 1)
    refused = refusal_of(probability)
    assert refused.reason.code is ReasonCode.LEVELS_AMBIGUOUS
    assert "small disc or none" in refused.reason.detail


@pytest.mark.parametrize(("sacral", "outcome"), [(5, "named"), (4, "named"), (3, "doubted"), (2, "refused")])
def test_the_slices_vote_on_the_sacrum(sacral: int, outcome: str) -> None:
    probability = Spine().probability()
    paint(probability, (slice(sacral, None), slice(202, 256), slice(100, 145)), 2)
    if outcome == "refused":
        assert refusal_of(probability).reason.code is ReasonCode.LEVELS_AMBIGUOUS
        return
    doubts = name_discs(probability, SPACING_MM).doubts
    assert [reason.code for reason in doubts] == [ReasonCode.LEVELS_AMBIGUOUS] * (outcome == "doubted")
    assert all("3 of 5 slices" in reason.detail for reason in doubts)


def test_a_little_sacrum_is_not_enough() -> None:
    probability = Spine().probability()
    paint(probability, (slice(None), slice(211, 256), slice(100, 145)), 0)
    refused = refusal_of(probability)
    assert refused.reason.code is ReasonCode.LEVELS_AMBIGUOUS
    assert "of sacrum in view" in refused.reason.detail


@pytest.mark.parametrize(("length_mm", "doubted"), [(12.0, False), (18.0, False), (32.0, True)])
def test_a_well_formed_disc_inside_the_sacrum_asks_for_review(length_mm: float, doubted: bool) -> None:
    named = name_discs(Spine(sacral_disc_mm=length_mm, lowest_row=170).probability(), SPACING_MM)
    assert [reason.code for reason in named.doubts] == [ReasonCode.LEVELS_AMBIGUOUS] * doubted


def test_the_word_of_a_person_stands_in_the_reasons() -> None:
    named = name_discs(Spine(with_sacrum=False).probability(), SPACING_MM, lowest_disc=Level.L4L5)
    (reason,) = named.doubts
    assert reason.code is ReasonCode.REVIEW_REQUIRED
    assert "a person named the lowest disc L4L5" in reason.detail
