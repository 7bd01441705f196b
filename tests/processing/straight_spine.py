"""A network's answer to a straight spine, made by hand: every edge and every name is known."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SPACING_MM = (4.0, 0.78125, 0.78125)
PIXEL_MM = SPACING_MM[1]
SURE, OTHER = 0.92, 0.02  # probability of the true class, and of each other one


@dataclass(frozen=True)
class Spine:
    """A straight spine in a picture of 256 x 256 pixels: discs of 9 mm, bodies of 25 mm, sacrum below, canal behind."""

    discs: int = 6
    slices: int = 5
    missing: tuple[int, ...] = ()  # counted from below, 1 = L5S1
    with_sacrum: bool = True
    sacral_disc_mm: float = 0.0  # anterior-posterior length of a disc between S1 and S2
    lowest_row: int = 190

    @property
    def classes(self) -> npt.NDArray[np.uint8]:
        """(slices, rows, columns): 0 background, 1 disc, 2 vertebral body, 3 sacrum, 4 canal."""
        classes = np.zeros((self.slices, 256, 256), np.uint8)
        columns = slice(100, 145)
        disc, body = round(9 / PIXEL_MM), round(25 / PIXEL_MM)
        row = self.lowest_row
        below = slice(row + disc, min(256, row + disc + 2 * body))
        classes[:, below, columns] = 3 if self.with_sacrum else 2
        classes[:, : min(256, row + disc + body), 150:168] = 4
        if self.sacral_disc_mm:
            half = round(self.sacral_disc_mm / PIXEL_MM / 2)
            classes[:, row + disc + body : row + disc + body + 5, 122 - half : 122 + half] = 1
        for number in range(1, self.discs + 1):
            if number not in self.missing:
                classes[:, max(0, row) : max(0, row + disc), columns] = 1
            classes[:, max(0, row - body) : max(0, row), columns] = 2
            row -= disc + body
        return classes

    def probability(self) -> npt.NDArray[np.float32]:
        """(classes, slices, rows, columns)."""
        return probability_of(self.classes)


def probability_of(classes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """A sure answer: (classes, slices, rows, columns)."""
    probability = np.full((5, *classes.shape), OTHER, np.float32)
    np.put_along_axis(probability, classes[None].astype(int), SURE, axis=0)
    return probability


def paint(probability: npt.NDArray[np.float32], where: tuple[slice, ...], tissue: int) -> None:
    """Make a region (slices, rows, columns) surely of one tissue, in place."""
    probability[(slice(None), *where)] = OTHER
    probability[(tissue, *where)] = SURE
