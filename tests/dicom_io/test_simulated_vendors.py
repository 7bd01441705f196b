"""One exam in the headers of every vendor: where the times and scales stand, and that pixels give back the exam."""

import re
import subprocess
import warnings
from collections import defaultdict
from itertools import product
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from config.protocol_cards import Role, load_cards
from dicom_io.simulated_scanner import check_flavour, write_exam
from processing.phantom import PhantomExam, simulate_exam
from processing.results import Quantity

FLAVOURS: dict[str, dict[str, object]] = {
    "ge": {},
    "ge, one EchoTime": {"one_echo_time": True},
    "siemens": {"vendor": "siemens"},
    "siemens, enhanced": {"vendor": "siemens", "enhanced": True},
    "philips": {"vendor": "philips"},
    "philips, enhanced": {"vendor": "philips", "enhanced": True},
    "philips, one scan": {"vendor": "philips", "one_scan": True},
    "philips, enhanced, one scan": {"vendor": "philips", "enhanced": True, "one_scan": True},
    "philips, phase": {"vendor": "philips", "phase_images": True},
    "philips, enhanced, phase": {"vendor": "philips", "enhanced": True, "phase_images": True},
}
N_SLICES = 2
PHILIPS_IMAGING = "Philips MR Imaging DD 001"


@pytest.fixture(scope="module")
def exam() -> PhantomExam:
    return simulate_exam(4, n_slices=N_SLICES, matrix=64, oblique_deg=7.0)


@pytest.fixture(scope="module")
def written(exam: PhantomExam, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("flavours")
    return {name: write_exam(exam, folder / name, **how) for name, how in FLAVOURS.items()}


@pytest.fixture(scope="module")
def objects(written: dict[str, list[Path]]) -> dict[str, dict[str, list[Dataset]]]:
    """Data sets by flavour and SeriesDescription."""
    found: dict[str, dict[str, list[Dataset]]] = {}
    for name, paths in written.items():
        by_series = defaultdict(list)
        for path in paths:
            dataset = dcmread(path)
            by_series[dataset.SeriesDescription].append(dataset)
        found[name] = dict(by_series)
    return found


def test_ge_with_one_echo_time_tells_no_times_but_orders_by_time(objects: dict, exam: PhantomExam) -> None:
    images = objects["ge, one EchoTime"]["MAPSS T1rho T2"]
    assert {(float(image.EchoTime), image.EchoNumbers) for image in images} == {(2.1, 1)}
    assert {image.ImagesInAcquisition for image in images} == {7 * N_SLICES}
    assert [image.InstanceNumber for image in images] == list(range(1, 7 * N_SLICES + 1))
    of_first_slice = np.stack([image.pixel_array for image in images[:7]]).astype(float)
    acquired = [exam.times_ms.index(time_ms) for time_ms in (0, 10, 40, 80, 12.8, 25.7, 51.4)]
    expected = exam.signal[acquired, 0]
    np.testing.assert_allclose(of_first_slice, expected * (16_000 / exam.signal.max()), atol=0.51)


@pytest.mark.parametrize("flavour", ["siemens", "siemens, enhanced"])
def test_siemens_names_each_time_in_the_description_alone(objects: dict, flavour: str) -> None:
    series = objects[flavour]
    assert list(series) == [
        "t2_tse_sag",
        *(f"MAPSS TSL {time:g}" for time in (0, 10, 40, 80)),
        *(f"MAPSS T2prep TE {time:g}" for time in (12.8, 25.7, 51.4)),
    ]
    for images in series.values():
        assert len(images) == (1 if "enhanced" in flavour else N_SLICES)
        assert {image.SeriesInstanceUID for image in images} == {images[0].SeriesInstanceUID}
    for image in series["MAPSS TSL 40"]:
        assert image.Manufacturer == "Siemens Healthineers"
        assert image.get("EchoNumbers") is None
        assert "40" not in [str(element.value) for element in image if element.VR in ("DS", "IS", "FD")]
        assert image.get("TriggerTime") is image.get("InversionTime") is None
        assert "ImagesInAcquisition" not in image
        assert image.BitsStored == 12


def test_siemens_classic_is_split_from_enhanced(objects: dict) -> None:
    image = objects["siemens"]["MAPSS TSL 40"][0]
    assert image.ImageType == ["ORIGINAL", "PRIMARY", "M", "ND", "MFSPLIT"]
    assert (float(image.EchoTime), float(image.RescaleSlope), float(image.RescaleIntercept)) == (2.1, 1.0, 0.0)
    assert "TriggerTime" in image  # present, and empty
    assert "InversionTime" in image


@pytest.mark.parametrize("flavour", ["philips", "philips, phase"])
def test_philips_is_slice_major_and_has_the_time_in_trigger_time(objects: dict, flavour: str) -> None:
    series = objects[flavour]
    times = {"MAPSS TSL 0_10_40_80 ms": [0, 10, 40, 80], "MAPSS T2prep TE 0_12.8_25.7_51.4 ms": [0, 12.8, 25.7, 51.4]}
    assert list(series) == ["SAG T2W TSE", *times]
    for description, expected in times.items():
        magnitude = [image for image in series[description] if image.ImageType[3] == "M"]
        assert [image.InstanceNumber for image in magnitude] == list(range(1, 4 * N_SLICES + 1))
        assert [float(image.TriggerTime) for image in magnitude] == expected * N_SLICES
        assert [image[0x2001, 0x100A].value for image in magnitude] == [1] * 4 + [2] * 4
        assert {float(image.EchoTime) for image in magnitude} == {2.1}
        assert {tuple(image.ImageType) for image in magnitude} == {("ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE")}
        phase = [image for image in series[description] if image.ImageType[3] == "P"]
        assert len(phase) == (4 * N_SLICES if "phase" in flavour else 0)


def test_philips_in_one_scan_lists_all_times(objects: dict) -> None:
    images = objects["philips, one scan"]["MAPSS TSL 0_10_40_80 TE 0_12.8_25.7_51.4 ms"]
    assert [float(image.TriggerTime) for image in images] == [0, 10, 40, 80, 12.8, 25.7, 51.4] * N_SLICES
    assert len(images[0].SeriesDescription) <= 64  # what a Long String may hold


def test_philips_enhanced_tells_time_and_scale_per_frame(objects: dict) -> None:
    (exam_object,) = objects["philips, enhanced"]["MAPSS TSL 0_10_40_80 ms"]
    frames = exam_object.PerFrameFunctionalGroupsSequence
    assert exam_object.NumberOfFrames == len(frames) == 4 * N_SLICES
    standard = [frame.CardiacSynchronizationSequence[0].NominalCardiacTriggerDelayTime for frame in frames]
    private = [float(frame[0x2005, 0x140F].value[0].TriggerTime) for frame in frames]
    assert standard == private == [0, 10, 40, 80] * N_SLICES
    assert {frame.MREchoSequence[0].EffectiveEchoTime for frame in frames} == {2.1}
    assert len({frame[0x2005, 0x140F].value[0][0x2005, 0x100E].value for frame in frames}) == len(frames)


def test_scales_make_the_exam_of_philips_images_and_nothing_else_does(objects: dict, exam: PhantomExam) -> None:
    for flavour, (description, quantity) in product(
        ("philips", "philips, enhanced"),
        (
            ("MAPSS TSL 0_10_40_80 ms", Quantity.T1RHO),
            ("MAPSS T2prep TE 0_12.8_25.7_51.4 ms", Quantity.T2),
        ),
    ):
        images = _images_of(objects[flavour][description])
        stored = np.stack([pixels for pixels, _ in images]).astype(float)
        rescale = np.array([float(header.RescaleSlope) for _, header in images])[:, None, None]
        scale = np.array(
            [header.private_block(0x2005, PHILIPS_IMAGING)[0x0E].value for _, header in images], dtype=float
        )[:, None, None]
        expected = exam.echoes(quantity)[1].swapaxes(0, 1).reshape(stored.shape) * 2000.0  # slice-major
        # half a step of quantisation; half more at the brightest pixel, where 12 bits end
        assert np.all(np.abs(stored * rescale / (rescale * scale) - expected) <= 0.51 / scale + 1e-3 * expected.max())
        for wrong in (stored, stored * rescale, stored * rescale / scale):
            last = wrong.reshape(N_SLICES, 4, -1)[:, 3].sum() / wrong.reshape(N_SLICES, 4, -1)[:, 0].sum()
            true = expected.reshape(N_SLICES, 4, -1)[:, 3].sum() / expected.reshape(N_SLICES, 4, -1)[:, 0].sum()
            assert abs(np.log(last / true)) > 0.05  # a signal ratio 5 % off: a wrong time


@pytest.mark.parametrize("flavour", ["siemens", "siemens, enhanced"])
def test_siemens_pixels_are_the_exam_at_one_scale(objects: dict, exam: PhantomExam, flavour: str) -> None:
    for time_index, time_ms in enumerate(exam.times_ms):
        names = [name for name in objects[flavour] if re.search(rf"(TSL|TE) {time_ms:g}$", name)]
        assert len(names) == 1
        stored = np.stack([pixels for pixels, _ in _images_of(objects[flavour][names[0]])]).astype(float)
        np.testing.assert_allclose(stored, exam.signal[time_index] * (4000 / exam.signal.max()), atol=0.51)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_flavour_lies_where_the_exam_lies(objects: dict, exam: PhantomExam, flavour: str) -> None:
    for description, images in objects[flavour].items():
        affine = exam.anatomy_image.affine if re.search("(?i)tse|fse", description) else exam.affine
        for position, orientation, spacing in _planes(images):
            np.testing.assert_allclose(orientation[:3] * spacing[1], affine[:3, 2], atol=1e-5)
            np.testing.assert_allclose(orientation[3:] * spacing[0], affine[:3, 1], atol=1e-5)
            index = np.linalg.solve(affine, [*position, 1.0])[:3]
            np.testing.assert_allclose(index[1:], 0, atol=1e-4)
            assert abs(index[0] - round(index[0])) < 1e-4
            assert 0 <= round(index[0]) < N_SLICES


@pytest.mark.parametrize(
    ("flavour", "series"), [("siemens, enhanced", "series-005"), ("philips, enhanced", "series-201")]
)
def test_highdicom_finds_the_volume_of_an_enhanced_object_where_the_exam_lies(
    written: dict[str, list[Path]], exam: PhantomExam, flavour: str, series: str
) -> None:
    (path,) = (path for path in written[flavour] if path.parent.name == series)
    volume = highdicom.imread(path).get_volume()
    affine = exam.anatomy_image.affine if series == "series-201" else exam.affine
    shape = (N_SLICES, *exam.signal.shape[2:]) if series != "series-201" else exam.anatomy_image.array.shape
    assert volume.spatial_shape == shape
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(np.array(shape) - 1), 1]
    found, expected = corners @ volume.affine.T, corners @ affine.T
    # highdicom may begin at the other end of the stack
    distances = np.linalg.norm(found[:, None] - expected[None], axis=2).min(axis=1)
    assert distances.max() < 0.01


@pytest.mark.parametrize(
    ("flavour", "shape"),
    [
        ("philips, enhanced", (64, 64, N_SLICES, 4)),
        ("philips, enhanced, one scan", (64, 64, N_SLICES, 7)),
        ("philips, enhanced, phase", (64, 64, N_SLICES, 2, 4)),
        ("siemens, enhanced", (64, 64, N_SLICES)),
    ],
)
def test_nibabel_sorts_the_frames_by_slice_and_time(
    written: dict[str, list[Path]], flavour: str, shape: tuple[int, ...]
) -> None:
    (path,) = (path for path in written[flavour] if path.parent.name in ("series-301", "series-003"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel warns of its DICOM readers as experimental
        from nibabel.nicom.dicomwrappers import wrapper_from_file
    wrapper = wrapper_from_file(path)
    assert wrapper.image_shape == shape
    dataset = dcmread(path)
    expected = dataset.pixel_array.reshape(-1, 64, 64)  # frames: by slice, then time; phase after magnitude
    found = np.moveaxis(np.asarray(wrapper.get_unscaled_data()), (0, 1), (-2, -1))  # (slices, [parts,] [times,] ...)
    found = found[::-1]  # nibabel begins at the lowest place along the normal
    if len(shape) == 5:
        found = np.moveaxis(found, 1, 0)
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


def test_no_uid_is_shared_between_flavours(objects: dict) -> None:
    kinds = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    for keyword in kinds:
        found = [
            {image[keyword].value for images in series.values() for image in images} for series in objects.values()
        ]
        assert sum(len(uids) for uids in found) == len(set.union(*found))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_each_series_is_matched_by_exactly_one_card(objects: dict, flavour: str) -> None:
    for description, images in objects[flavour].items():
        fitting = [
            card
            for card in load_cards()
            if all(
                pattern is None or re.search(pattern, text, re.IGNORECASE)
                for pattern, text in (
                    (card.match.manufacturer, images[0].Manufacturer),
                    (card.match.series_description, description),
                )
            )
        ]
        assert len(fitting) == 1, (description, [card.name for card in fitting])
        assert fitting[0].role is (Role.ANATOMY if re.search("(?i)tse|fse", description) else Role.RELAXOMETRY)


def test_a_file_says_that_it_is_simulated(objects: dict) -> None:
    for series in objects.values():
        for images in series.values():
            for image in images:
                assert "RESEARCH USE ONLY" in image.ImageComments
                assert "SIMULATED" in image.ManufacturerModelName
                assert image.SOPClassUID in (MRImageStorage, EnhancedMRImageStorage)


@pytest.mark.parametrize(
    ("flavour", "message"),
    [
        ({"vendor": "hyperfine"}, "there are: ge, philips, siemens"),
        ({"vendor": "ge", "enhanced": True}, "simulated for philips and siemens"),
        ({"vendor": "siemens", "one_echo_time": True}, "is GE's way"),
        ({"vendor": "ge", "one_scan": True}, "a choice of philips"),
        ({"vendor": "siemens", "phase_images": True}, "for philips only"),
        ({"vendor": "philips", "protocol": "t1rho-fse"}, "simulated for ge only, not for philips"),
    ],
)
def test_a_flavour_that_is_not_simulated_is_told(flavour: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_flavour(**({"protocol": "mapss"} | flavour))


@pytest.mark.peers
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_dciodvfy_finds_no_error_but_those_of_the_real_scanner(written: dict[str, list[Path]], flavour: str) -> None:
    """Philips and XA30 write TriggerTime and InversionTime where the standard wants none: real files, same errors."""
    accepted = (
        ("TriggerTime", "InversionTime")
        if flavour.startswith(("siemens", "philips")) and "enhanced" not in flavour
        else ()
    )
    one_of_each_series = {path.parent: path for path in written[flavour]}
    assert len(one_of_each_series) > 1
    for path in one_of_each_series.values():
        report = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        lines = (report.stderr + report.stdout).splitlines()
        errors = [
            line for line in lines if line.startswith("Error") and not any(f"<{name}>" in line for name in accepted)
        ]
        assert errors == []
    consistency = subprocess.run(["dcentvfy", *map(str, written[flavour])], capture_output=True, text=True, check=False)
    assert "Error" not in consistency.stdout + consistency.stderr


def _images_of(series: list[Dataset]) -> list[tuple[np.ndarray, Dataset]]:
    """Stored pixels of the images of a series, and where their scales stand."""
    if series[0].SOPClassUID == MRImageStorage:
        return [(image.pixel_array, image) for image in series]
    (whole,) = series
    pixels = whole.pixel_array.reshape(-1, whole.Rows, whole.Columns)
    items = [
        frame[0x2005, 0x140F].value[0] if (0x2005, 0x140F) in frame else frame
        for frame in whole.PerFrameFunctionalGroupsSequence
    ]
    return list(zip(pixels, items, strict=True))


def _planes(images: list[Dataset]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    if images[0].SOPClassUID == MRImageStorage:
        headers = [(image, image, image) for image in images]
    else:
        headers = [
            (frame.PlanePositionSequence[0], frame.PlaneOrientationSequence[0], frame.PixelMeasuresSequence[0])
            for image in images
            for frame in image.PerFrameFunctionalGroupsSequence
        ]
    return [
        (
            np.array(place.ImagePositionPatient, dtype=float),
            np.array(turn.ImageOrientationPatient, dtype=float),
            np.array(grid.PixelSpacing, dtype=float),
        )
        for place, turn, grid in headers
    ]
