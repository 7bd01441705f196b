"""Spines that differ from the usual one in what is there, not only in size: what the naming of levels must survive."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Variant:
    """A variant of the lumbar spine. Levels are always counted from the disc on the sacrum (1 = L5S1) upwards.

    ``n_lumbar`` 4, 5 or 6 lumbar bodies: the shapes of the segments are those of a spine with one less or one more.
    ``lumbarised_s1``: a well-formed disc between S1 and S2; it is sacrum for every purpose. ``missing_disc``: level of
    a disc whose bodies are fused (block vertebra), 0 for none. ``flat_body``: level of the disc below a body collapsed
    to a third of its height, 0 for none; the discs beside it nearly touch.

    Raises:
        ValueError: a number outside these ranges.
    """

    n_lumbar: int = 5
    lumbarised_s1: bool = False
    missing_disc: int = 0
    flat_body: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if self.n_lumbar not in (4, 5, 6):
            raise ValueError(f"{self.n_lumbar} lumbar bodies; 4, 5 or 6 can be simulated")
        if not 0 <= self.missing_disc <= 5 or not 0 <= self.flat_body <= 5:
            raise ValueError("missing_disc and flat_body name a level, 1 (L5S1) to 5 (L1L2), or 0 for none")

    def usual_segment(self, index: int) -> int:
        """Which segment of the usual spine (0 = L5S1) the segment ``index`` from below is shaped like, at most 8."""
        if self.n_lumbar == 6 and index >= 3:
            return index - 1  # L3 comes twice
        if self.n_lumbar == 4 and index >= 2:
            return min(index + 1, 8)  # L3 is left out
        return index


#: Five lumbar bodies, every disc there.
USUAL = Variant()
