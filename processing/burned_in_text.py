"""Does an image show text that was written into its pixels? Strokes of one grey value, in a row, as letters stand."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

_LEAST_LETTERS = 4
_LETTER_HEIGHT = (5, 48)  # pixels
_LETTER_FILL = (0.12, 0.85)  # of the letter's box
_LEAST_STROKE_PIXELS = 4
_LEAST_EQUAL = 0.6  # share of a value's pixels that have an equal neighbour
_LEAST_EXACT_SHARE = 0.5  # of the letters of a line have pixels of the very value
_MOST_VALUES = 12  # grey values looked at, the most frequent first
_SMOOTHED = 0.5  # of the way from the value to the image's median is still of a letter
_ALL_AROUND = np.ones((3, 3), np.int8)


def shows_text(pixels: npt.NDArray[np.generic]) -> bool:
    """Whether stored values hold a line of at least four letters.

    Text is burned in with one value, which stands out of what surrounds it: a pixel of a stroke has the very value of
    its neighbours on the stroke. In what a scanner measured, equal neighbours are rare, save where values are cut off
    at the top; such plateaus have neither the size nor the order of letters.

    Args:
        pixels: (rows, columns), any integer or real type. Colour: one channel after the other.
    """
    values = np.asarray(pixels)
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if finite.size == 0 or finite.min() == finite.max():
        return False
    middle = float(np.median(finite))
    return any(
        _has_line(values == value, near)
        for value in _stroke_values(values)
        for near in (values == value, np.abs(values - float(value)) <= _SMOOTHED * abs(float(value) - middle))
    )


def _stroke_values(values: npt.NDArray[np.generic]) -> list[np.generic]:
    """Values of which most pixels have an equal neighbour; in noise few have one, however often the value is."""
    equal = np.zeros(values.shape, bool)
    for axis in (0, 1):
        same = np.diff(values, axis=axis) == 0
        before, after = [slice(None)] * 2, [slice(None)] * 2
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        equal[tuple(before)] |= same
        equal[tuple(after)] |= same
    found, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    with_equal = np.bincount(places.ravel(), weights=equal.ravel(), minlength=len(found))
    is_stroke = (counts >= _LEAST_LETTERS * _LEAST_STROKE_PIXELS) & (with_equal >= _LEAST_EQUAL * counts)
    order = np.argsort(np.where(is_stroke, counts, 0), kind="stable")[::-1]
    return [found[place] for place in order[:_MOST_VALUES] if is_stroke[place]]


def _has_line(strokes: npt.NDArray[np.bool_], near: npt.NDArray[np.bool_]) -> bool:
    """Whether components stand in a row like letters: of one value, or of smoothed edges around it (``near``)."""
    if strokes.mean() > 0.25:  # background, or an area: no strokes
        return False
    labels, _ = ndimage.label(near, _ALL_AROUND)
    exact = np.bincount(labels[strokes], minlength=labels.max() + 1)
    boxes = ndimage.find_objects(labels)
    sizes = np.bincount(labels.ravel(), minlength=len(boxes) + 1)
    letters = []
    for number, box in enumerate(boxes, 1):
        height, width = box[0].stop - box[0].start, box[1].stop - box[1].start
        fill = sizes[number] / (height * width)
        is_letter = _LETTER_FILL[0] <= fill <= _LETTER_FILL[1] or (width <= max(2, height // 4) and fill > 0.5)
        if _LETTER_HEIGHT[0] <= height <= _LETTER_HEIGHT[1] and width <= 1.6 * height and is_letter:
            letters.append(_Letter(box[0].start, box[0].stop, box[1].start, box[1].stop, exact[number] > 0))
    return _is_line(sorted(letters, key=lambda one: one.left))


class _Letter(NamedTuple):
    """The box of a component, in pixels, and whether some of it has the very value."""

    top: int
    bottom: int
    left: int
    right: int
    is_exact: bool


def _is_line(letters: list[_Letter]) -> bool:
    """Whether enough letters of like height follow each other on one line; from left to right."""
    lines: list[tuple[int, int]] = []  # letters up to this one, and how many of them are exact
    for place, letter in enumerate(letters):
        best = (0, 0)
        for before in range(place - 1, -1, -1):
            if _follows(letter, letters[before]):
                best = max(best, lines[before])
        lines.append((best[0] + 1, best[1] + letter.is_exact))
        if lines[-1][0] >= _LEAST_LETTERS and lines[-1][1] >= _LEAST_EXACT_SHARE * lines[-1][0]:
            return True
    return False


def _follows(letter: _Letter, other: _Letter) -> bool:
    height, other_height = letter.bottom - letter.top, other.bottom - other.top
    tallest = max(height, other_height)
    is_like = abs(height - other_height) <= 0.45 * tallest
    is_on_line = abs(letter.bottom - other.bottom) <= 0.35 * tallest
    return is_like and is_on_line and -1 <= letter.left - other.right <= 1.5 * height
