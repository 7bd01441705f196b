"""Text in pixels is found where people burn it in, and not where there is none."""

from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from PIL import Image, ImageDraw, ImageFont

from processing.burned_in_text import shows_text
from processing.phantom import simulate_exam

FONT = str(Path(matplotlib.__file__).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf")
HEADERS = Path(__file__).parents[1] / "data" / "real_headers"


@pytest.fixture(scope="module")
def images() -> list[npt.NDArray[np.uint16]]:
    exam = simulate_exam(3, n_slices=3)
    scale = 4000 / exam.signal.max()
    return [np.rint(one * scale).astype(np.uint16) for one in exam.signal.reshape(-1, *exam.signal.shape[2:])]


def burned_in(image: npt.NDArray[np.uint16], text: str, size: int, *, smooth: bool, at: str) -> npt.NDArray[np.uint16]:
    rows, columns = image.shape
    drawn = Image.new("L", (columns, rows))
    pen = ImageDraw.Draw(drawn)
    if not smooth:
        pen.fontmode = "1"
    top = 3 if at == "top" else rows - size - 5
    pen.text((5, top), text, fill=255, font=ImageFont.truetype(FONT, size))
    share = np.asarray(drawn) / 255
    return np.rint(image * (1 - share) + image.max() * share).astype(np.uint16)


def test_names_are_found_in_every_size_and_place(images: list[npt.NDArray[np.uint16]]) -> None:
    asked = [
        (size, text, smooth, at)
        for size in (10, 12, 16, 24)
        for text in ("SMITH ANN", "Doe, Jane 1962", "ID 4711-2234")
        for smooth in (False, True)
        for at in ("top", "bottom")
    ]
    missed = [
        (size, text, smooth, at)
        for number, (size, text, smooth, at) in enumerate(asked)
        if not shows_text(burned_in(images[number % len(images)], text, size, smooth=smooth, at=at))
    ]
    assert len(missed) <= 0.1 * len(asked), missed


def test_images_without_text_pass(images: list[npt.NDArray[np.uint16]]) -> None:
    assert not any(shows_text(image) for image in images)
    assert not any(shows_text(np.minimum(image, 1500)) for image in images), "values cut off at the top"
    assert not shows_text(np.zeros((40, 40), np.uint16))
    for name in ("dcmstack/TE_20_SlcPos_-23.207628249046.dcm", "dcm_qa_philips_enh/cl_2001_0001.dcm"):
        assert not shows_text(pydicom.dcmread(HEADERS / name).pixel_array)
