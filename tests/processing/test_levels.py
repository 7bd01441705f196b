from dataclasses import dataclass

import numpy as np
import pytest

from processing.levels import name_discs
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import Level

SPACING_MM = (4.0, 0.78125, 0.78125)
PIXEL = SPACING_MM[1]


@dataclass(frozen=True)
class Spine:
    """A straight spine in a picture of 256 x 256 pixels: discs of 9 mm, bodies of 25 mm, sacrum below."""

    discs: int = 6
    slices: int = 5
    missing: tuple[int, ...] = ()  # counted from below, 1 = L5S1
    with_sacrum: bool = True
    sacral_disc_mm: float = 0.0  # anterior-posterior length of a disc between S1 and S2
    lowest_row: int = 190

    def probability(self) -> np.ndarray:
        classes = np.zeros((self.slices, 256, 256), np.uint8)
        columns = slice(100, 145)
        disc, body = round(9 / PIXEL), round(25 / PIXEL)
        row = self.lowest_row
        below = slice(row + disc, min(256, row + disc + 2 * body))
        classes[:, below, columns] = 3 if self.with_sacrum else 2
        if self.sacral_disc_mm:
            half = round(self.sacral_disc_mm / PIXEL / 2)
            classes[:, row + disc + body : row + disc + body + 5, 122 - half : 122 + half] = 1
        for number in range(1, self.discs + 1):
            if number not in self.missing:
                classes[:, max(0, row) : max(0, row + disc), columns] = 1
            classes[:, max(0, row - body) : max(0, row), columns] = 2
            row -= disc + body
        probability = np.full((5, *classes.shape), 0.02, np.float32)
        np.put_along_axis(probability, classes[None].astype(int), 0.92, axis=0)
        return probability


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
