"""Results opened in OHIF, as a reader does: on an Orthanc that got them by STOW-RS, in headless Chromium.

The pictures are kept in ``out/viewer`` for people to look at.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from browser import Browser
from ohif import Viewer, ViewerServer, ohif_folder
from peers import Orthanc, need, wait_until
from phantom_result import measured_phantom

from dicom_io.stow import WebService, store_each
from processing.display import LEVEL_COLOURS, LEVEL_NAMES
from processing.results import ExamResult, Level, Quantity, Region
from service.result_files import write_result

pytestmark = [pytest.mark.viewer, pytest.mark.peers, pytest.mark.slow]

PICTURES = Path(__file__).parents[2] / "out" / "viewer"
#: OHIF multiplies the values of a parametric map by this, and shows them in a window of 0 to 100.
OHIF_MAP_FACTOR = 100.0
#: Kinds that the list calls by another name than Modality.
MODALITIES = {"pmap": "PMAP", "orphan": "PMAP"}


@dataclass(frozen=True, slots=True)
class Series:
    """A series at the archive: what it is, and one of its objects' headers."""

    number: int
    kind: str
    header: pydicom.Dataset
    path: Path


@dataclass(frozen=True, slots=True)
class Site:
    """The viewer on an archive that holds an exam and its results."""

    viewer: Viewer
    result: ExamResult
    series: dict[int, Series]

    def open(self, series: Series, name: str, *, afresh: bool = True) -> npt.NDArray[np.uint8]:
        """Show a series; the picture of the viewport, in which nothing is complained of."""
        if afresh:
            self.viewer.reload(len(self.series))
        page = self.viewer.show(series.number, PICTURES / f"{name}.png")
        assert self.viewer.complaints() == []
        left, top, right, bottom = self.viewer.viewport()
        return page[top:bottom, left:right]

    def open_map(self, series: Series, name: str) -> None:
        """Show a map, and wait until its colours lie over the grey image that it belongs to."""
        assert is_a_picture(self.open(series, f"{name}-as-opened"))
        left, top, right, bottom = self.viewer.viewport()

        def has_colours() -> bool:
            page = self.viewer.look(PICTURES / f"{name}-as-opened.png")
            return share_of_colours(page[top:bottom, left:right]) > 0.005

        wait_until(has_colours, f"the colours of {name}", 40)

    def of_kind(self, kind: str, *words: str) -> list[Series]:
        """The series of a kind whose description has all the words."""
        found = [one for one in self.series.values() if one.kind == kind]
        return [one for one in found if all(word in one.header.SeriesDescription for word in words)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    need("Orthanc", "chromium")
    dist = ohif_folder()
    folder = tmp_path_factory.mktemp("viewer")
    (folder / "source").mkdir()
    _, images, result = measured_phantom(folder / "source")
    summary = write_result(result, images, folder / "result")
    kinds = {folder / "result" / one.path: str(one.kind) for one in summary.objects}
    kinds |= {path: "source" for path in sorted((folder / "source").rglob("*")) if path.is_file()}
    kinds[_orphan(kinds, folder / "orphan.dcm")] = "orphan"
    series: dict[int, Series] = {}
    for path, kind in kinds.items():
        header = pydicom.dcmread(path, stop_before_pixels=True)
        series[header.SeriesNumber] = Series(header.SeriesNumber, kind, header, path)
    PICTURES.mkdir(parents=True, exist_ok=True)
    for picture in PICTURES.glob("*.png"):
        picture.unlink()
    with Orthanc(folder / "orthanc") as archive:
        assert all(one.stored for one in store_each(list(kinds), WebService(archive.dicomweb_url)))
        with ViewerServer(dist, archive.http_port) as server, Browser(folder / "profile") as browser:
            viewer = Viewer(browser, server.address, str(header.StudyInstanceUID))
            yield Site(viewer, result, series)


def _orphan(kinds: dict[Path, str], path: Path) -> Path:
    """A map that refers to the images with several echoes in place of its own: OHIF cannot show it."""
    (wrong,) = (one for one, kind in kinds.items() if kind == "pmap" and one.name == "t1rho.dcm")
    echoes = next(
        header
        for one, kind in kinds.items()
        if kind == "source" and "MAPSS" in (header := pydicom.dcmread(one, stop_before_pixels=True)).SeriesDescription
    )
    dataset = pydicom.dcmread(wrong)
    dataset.ReferencedSeriesSequence[0].SeriesInstanceUID = echoes.SeriesInstanceUID
    dataset.SeriesInstanceUID, dataset.SeriesNumber = dataset.SeriesInstanceUID + ".1", 9999
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID + ".1"
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_every_series_is_listed_with_its_name(site: Site) -> None:
    site.viewer.reload(len(site.series))
    site.viewer.look(PICTURES / "study.png")
    listed = site.viewer.series()
    assert set(listed) == set(site.series)
    for number, text in listed.items():
        one = site.series[number]
        assert str(one.header.SeriesDescription) in text
        assert text.startswith(MODALITIES.get(one.kind, str(one.header.Modality)))


def test_images_are_shown(site: Site) -> None:
    site.viewer.reload(len(site.series))
    # the series with several echoes last: OHIF 3.13.2 fails on what follows it in the same viewport
    for one in [*site.of_kind("mr"), *site.of_kind("overlay"), *site.of_kind("source")]:
        view = site.open(one, f"{one.kind}-{one.number}", afresh=False)
        assert is_a_picture(view), one.header.SeriesDescription
        assert str(one.header.SeriesDescription) in site.viewer.text()


def test_discs_are_named_and_lie_where_they_are(site: Site) -> None:
    (segmentation,) = site.of_kind("seg")
    site.open(segmentation, "segmentation-first")
    mask = site.result.mask
    assert mask is not None
    shown = {one.number: one for one in site.viewer.segments()}
    assert [one.label for one in shown.values()] == [f"{LEVEL_NAMES[level]} disc" for level in mask.found]
    for number, level in enumerate(mask.found, start=1):
        voxels = np.argwhere(mask.levels == level)
        assert shown[number].n_voxels == len(voxels)
        np.testing.assert_allclose(shown[number].centre_lps_mm, world(voxels.mean(axis=0), mask.affine), atol=0.01)
    site.viewer.open_list_of_segments()
    for k in (1, 3, 4):  # the discs differ from slice to slice
        places = {level: inside(mask.levels[k] == level, k, mask.affine) for level in mask.found}
        at = {level: site.viewer.go_to(place) for level, place in places.items()}
        page = site.viewer.look(PICTURES / f"segmentation-slice-{k + 1}.png")
        assert {level: nearest_colour(page[row, column]) for level, (column, row) in at.items()} == {
            level: level for level in mask.found
        }


@pytest.mark.parametrize("quantity", list(Quantity))
def test_maps_lie_on_the_discs_with_their_values(site: Site, quantity: Quantity) -> None:
    fitted = site.result.maps[quantity]
    one = min(site.of_kind("pmap", f"{quantity.value} map"), key=lambda series: series.number)
    check_map(site, one, f"map-{quantity.value}", fitted.time_ms, fitted.affine)
    site.viewer.window(0, 160 * OHIF_MAP_FACTOR)
    site.viewer.look(PICTURES / f"map-{quantity.value}-window-160-ms.png")


@pytest.mark.parametrize(
    ("quantity", "words", "attribute"),
    [(Quantity.T1RHO, "standard error", "standard_error_ms"), (Quantity.T2, "RMS residual", "residual_rms")],
)
def test_standard_errors_and_residuals_lie_on_the_discs_with_their_values(
    site: Site, quantity: Quantity, words: str, attribute: str
) -> None:
    fitted = site.result.maps[quantity]
    values = getattr(fitted, attribute)
    one = min(site.of_kind("pmap", f"{quantity.value} {words}"), key=lambda series: series.number)
    name = f"map-{quantity.value}-{words.replace(' ', '-')}"
    check_map(site, one, name, values, fitted.affine)
    site.viewer.window(0, float(np.nanpercentile(values, 98)) * OHIF_MAP_FACTOR)
    site.viewer.look(PICTURES / f"{name}-window-98-percent.png")


def check_map(
    site: Site, series: Series, name: str, values: npt.NDArray[np.float32], affine: npt.NDArray[np.float64]
) -> None:
    """A map opens in colour, and the viewer holds our values where ours lie, and no others."""
    site.open_map(series, name)
    shown, their_affine = site.viewer.map_values()
    ours = np.nan_to_num(values)
    at = np.argwhere(ours > 0)
    assert len(at) > 1000
    there = (world(at, affine) - their_affine[:3, 3]) @ np.linalg.inv(their_affine[:3, :3]).T
    theirs = np.rint(there).astype(int)
    np.testing.assert_allclose(shown[tuple(theirs.T)] / OHIF_MAP_FACTOR, ours[tuple(at.T)], rtol=1e-5)
    assert np.count_nonzero(shown) == len(at)


@pytest.mark.parametrize(
    ("words", "attribute", "upper"),
    [("map", "time_ms", 160.0), ("standard error", "standard_error_ms", 3.0)],
)
def test_maps_in_atlas_space_are_shown_on_the_atlas(site: Site, words: str, attribute: str, upper: float) -> None:
    (one,) = site.of_kind("pmap", f"{Quantity.T1RHO.value} {words}", "atlas")
    name = f"map-in-atlas-space-{words.replace(' ', '-')}"
    site.open_map(one, name)
    values, _ = site.viewer.map_values()
    discs = [getattr(disc.maps[Quantity.T1RHO], attribute)[disc.atlas.mask > 0] for disc in site.result.registered]
    np.testing.assert_allclose(np.sort(values[values > 0]) / OHIF_MAP_FACTOR, np.sort(np.concatenate(discs)), rtol=1e-5)
    site.viewer.window(0, upper * OHIF_MAP_FACTOR)
    site.viewer.look(PICTURES / f"{name}-window-{upper:g}.png")


@pytest.mark.parametrize("quantity", list(Quantity))
def test_scaled_maps_hold_tenths_of_milliseconds(site: Site, quantity: Quantity) -> None:
    fitted, mask = site.result.maps[quantity], site.result.mask
    assert mask is not None
    (one,) = site.of_kind("mr", quantity.value)
    site.open(one, f"scaled-{quantity.value}")
    for level, k in ((Level.L5S1, 2), (Level.L3L4, 3), (Level.L1L2, 4)):
        index = inside_index(mask.levels[k] == level, k)
        stored = site.viewer.stored_value(world(np.array(index), fitted.affine))
        assert stored == pytest.approx(10 * fitted.time_ms[index], abs=0.51)


def test_outlines_are_drawn_with_the_numbers_of_their_disc(site: Site) -> None:
    (one,) = site.of_kind("sr", "outlines")
    view = site.open(one, "outlines")
    assert is_a_picture(view)
    # the lines of a disc begin with its T1rho and end with its name
    drawn = re.findall(r"T1rho[^:\n]*: ([0-9.]+) ms(?:(?!T1rho).)*?(L\d/\S\d) disc", site.viewer.text(), re.DOTALL)
    assert {name: float(mean) for mean, name in drawn} == {
        LEVEL_NAMES[row.level]: round(row.mean_ms, 2)
        for row in site.result.measurements
        if row.region is Region.WHOLE_DISC and row.quantity is Quantity.T1RHO
    }


def test_the_report_for_machines_is_shown_as_text(site: Site) -> None:
    (one,) = site.of_kind("sr", "measurements")
    site.open(one, "measurements")
    text = site.viewer.text()
    assert "Imaging Measurements" in text
    assert all(f"{LEVEL_NAMES[level]} disc" in text for level in tuple(Level)[:5])


def test_the_exam_report_is_shown_in_the_browsers_own_reader(site: Site) -> None:
    (one,) = site.of_kind("pdf")
    view = site.open(one, "report")
    assert is_a_picture(view)
    document = pydicom.dcmread(one.path)
    assert site.viewer.document() == document.EncapsulatedDocument[: document.EncapsulatedDocumentLength]


def test_a_map_that_cannot_be_shown_is_complained_of(site: Site) -> None:
    (one,) = site.of_kind("orphan")
    site.viewer.reload(len(site.series))
    complaints = site.viewer.try_to_show(one.number, PICTURES / "cannot-be-shown.png")
    assert any("Referenced Volume is missing" in line for line in complaints)


def world(index: npt.NDArray[np.generic], affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Indices (..., 3) to LPS mm."""
    return np.asarray(index @ affine[:3, :3].T + affine[:3, 3], np.float64)


def inside_index(disc: npt.NDArray[np.bool_], k: int) -> tuple[int, int, int]:
    """A voxel of a disc's slice, about in its middle."""
    voxels = np.argwhere(disc)
    row, column = voxels[np.linalg.norm(voxels - voxels.mean(axis=0), axis=1).argmin()]
    return k, int(row), int(column)


def inside(disc: npt.NDArray[np.bool_], k: int, affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return world(np.array(inside_index(disc, k)), affine)


def nearest_colour(pixel: npt.NDArray[np.uint8]) -> Level:
    """Whose colour a pixel has that is laid over grey: the direction of the colours counts, not their strength."""

    def direction(colour: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        tint = colour.astype(float) - colour.mean()
        return np.asarray(tint / np.linalg.norm(tint), np.float64)

    assert int(pixel.max()) - int(pixel.min()) > 20, "no colour"
    return max(
        tuple(Level)[:5],
        key=lambda level: float(direction(np.array(LEVEL_COLOURS[level])) @ direction(pixel)),
    )


def share_of_colours(view: npt.NDArray[np.uint8]) -> float:
    """The share of pixels that are not grey."""
    return float((np.ptp(view.astype(int), axis=2) > 40).mean())


def is_a_picture(view: npt.NDArray[np.uint8]) -> bool:
    """Whether a viewport shows something, not one colour and a few letters."""
    colours = view.astype(np.int64) @ (65536, 256, 1)
    values, counts = np.unique(colours, return_counts=True)
    return bool(len(values) > 100 and counts.max() < 0.98 * counts.sum())
