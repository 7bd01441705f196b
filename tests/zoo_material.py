"""What the exams of the zoo are made of: a small simulated exam in every flavour, ways to change it, and real files."""

import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.data
from pydicom.dataset import FileDataset
from pydicom.uid import (
    UID,
    generate_uid,
)

from dicom_io.simulated_scanner import write_exam
from processing.phantom import PhantomExam, simulate_exam

REAL_HEADERS = Path(__file__).parent / "data" / "real_headers"
N_SLICES = 4
_ANATOMY = (2, 201)  # the series numbers that the simulated scanners give it
MAPSS_MS = (0.0, 10.0, 12.8, 25.7, 40.0, 51.4, 80.0)

Images = list[FileDataset]
Build = Callable[[Path], None]


@functools.cache
def phantom(protocol: str = "mapss", n_slices: int = N_SLICES, visit: int = 1, oblique_deg: float = 0.0) -> PhantomExam:
    """The truth behind the specimens."""
    return simulate_exam(
        4, n_slices=n_slices, matrix=32, protocol=protocol, visit=visit, oblique_deg=oblique_deg  # type: ignore[arg-type]
    )  # fmt: skip


@functools.cache
def _written(exam: PhantomExam, **options: Any) -> tuple[bytes, ...]:
    with tempfile.TemporaryDirectory() as folder:
        return tuple(path.read_bytes() for path in write_exam(exam, Path(folder), **options))


def scan(exam: PhantomExam | None = None, *, anatomy: bool = False, **options: Any) -> Images:
    """Fresh data sets of a simulated exam: the relaxometry, and the anatomy before it if asked for."""
    images = [
        pydicom.dcmread(pydicom.filebase.DicomBytesIO(content)) for content in _written(exam or phantom(), **options)
    ]
    return [one for one in images if anatomy or one.SeriesNumber not in _ANATOMY]


def save(folder: Path, images: Sequence[FileDataset]) -> None:
    """Files in an order unlike that of acquisition."""
    folder.mkdir(parents=True, exist_ok=True)
    n_before = len(list(folder.iterdir()))
    for number, image in enumerate(images):
        name = f"{(number * 7919 + n_before) % 10_007:05d}-{n_before + number}.dcm"
        image.save_as(folder / name, enforce_file_format=True)


def made(*changes: Callable[[Images], Images | None], **options: Any) -> Build:
    """A specimen from a simulated exam, changed step by step."""

    def build(folder: Path) -> None:
        images = scan(**options)
        for change in changes:
            changed = change(images)
            images = images if changed is None else changed
        save(folder, images)

    return build


def each(change: Callable[[FileDataset], None]) -> Callable[[Images], None]:
    def change_all(images: Images) -> None:
        for image in images:
            change(image)

    return change_all


def setting(**values: object) -> Callable[[Images], None]:
    """Attributes of every image; None removes one."""

    def change(image: FileDataset) -> None:
        for keyword, value in values.items():
            if value is None:
                if keyword in image:
                    delattr(image, keyword)
            else:
                setattr(image, keyword, value)

    return each(change)


def only(wanted: Callable[[FileDataset], bool]) -> Callable[[Images], Images]:
    return lambda images: [one for one in images if wanted(one)]


def without(unwanted: Callable[[FileDataset], bool]) -> Callable[[Images], Images]:
    return lambda images: [one for one in images if not unwanted(one)]


def one(index: int, **values: object) -> Callable[[Images], None]:
    """Attributes of one image."""
    return lambda images: setting(**values)([images[index]])


def echo(image: FileDataset) -> float:
    return float(image.EchoTime)


def slice_of(images: Images, number: int) -> Callable[[FileDataset], bool]:
    """Whether an image lies at a slice, counted from 0 from the right."""
    places = sorted({round(float(image.ImagePositionPatient[0]), 2) for image in images})
    return lambda image: round(float(image.ImagePositionPatient[0]), 2) == places[number]


def new_uid(image: FileDataset) -> None:
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()


def renamed_series(image: FileDataset, tag: str) -> None:
    """Another object of another series; the same tag, the same series."""
    new_uid(image)
    image.SeriesInstanceUID = generate_uid(entropy_srcs=[str(image.SeriesInstanceUID), tag])


def copies(tag: str, **values: object) -> Callable[[Images], Images]:
    """The images and, as another series, all of them once more."""

    def change(images: Images) -> Images:
        again = [copy_of(image) for image in images]
        for image in again:
            renamed_series(image, tag)
        setting(**values)(again)
        return [*images, *again]

    return change


def copy_of(image: FileDataset) -> FileDataset:
    stream = pydicom.filebase.DicomBytesIO()
    image.save_as(stream, enforce_file_format=True)
    return pydicom.dcmread(pydicom.filebase.DicomBytesIO(stream.getvalue()))


def compressed(syntax: UID) -> Callable[[Images], None]:
    def change(image: FileDataset) -> None:
        uid = image.SOPInstanceUID
        image.compress(syntax, generate_instance_uid=False)
        assert image.SOPInstanceUID == uid

    return each(change)


def encoded(syntax: UID) -> Build:
    def build(folder: Path) -> None:
        folder.mkdir(parents=True)
        for number, image in enumerate(scan()):
            if not syntax.is_little_endian:
                image.PixelData = image.pixel_array.astype(">u2").tobytes()
                image["PixelData"].VR = "OW"
            image.file_meta.TransferSyntaxUID = syntax
            forced: dict[str, bool] = {"implicit_vr": syntax.is_implicit_VR, "little_endian": syntax.is_little_endian}
            options = {} if syntax.is_deflated else forced | {"force_encoding": True}
            pydicom.dcmwrite(folder / f"{number}.dcm", image, **options)  # type: ignore[arg-type]

    return build


def signed(image: FileDataset) -> None:
    """The same values as two's complement around an intercept."""
    values = image.pixel_array.astype(np.int32) - 1000
    image.PixelData = values.astype("<i2").tobytes()
    image["PixelData"].VR = "OW"
    image.PixelRepresentation = 1
    image.RescaleSlope, image.RescaleIntercept = 1, 1000


def files_of(*names: str) -> Build:
    """Files that pydicom ships for its own tests."""

    def build(folder: Path) -> None:
        folder.mkdir(parents=True)
        for name in names:
            path = pydicom.data.get_testdata_file(name, download=False)
            assert path is not None, name
            (folder / name).write_bytes(Path(str(path)).read_bytes())

    return build


def real(*names: str) -> Build:
    """Files that real scanners wrote, as they are."""

    def build(folder: Path) -> None:
        folder.mkdir(parents=True)
        for name in names:
            (folder / Path(name).name).write_bytes((REAL_HEADERS / name).read_bytes())

    return build


def beside(build: Build, other: Build) -> Build:
    """Both in one folder."""

    def both(folder: Path) -> None:
        build(folder)
        other(folder / "beside")

    return both


def content(make: Callable[[bytes], bytes], index: int = 0) -> Build:
    """A GE exam of which one file's bytes are changed."""

    def build(folder: Path) -> None:
        save(folder, scan())
        path = sorted(folder.iterdir())[index]
        path.write_bytes(make(path.read_bytes()))

    return build


def raw_files(**files: bytes) -> Build:
    def build(folder: Path) -> None:
        folder.mkdir(parents=True)
        for name, bytes_of in files.items():
            (folder / name).write_bytes(bytes_of)

    return build
