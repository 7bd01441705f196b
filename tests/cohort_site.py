"""Results of a cohort with effects that are known: one real result, its maps in atlas space replaced for each scan."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from phantom_result import measured_phantom
from scipy import ndimage

from dicom_io.result_reader import read_atlas_maps
from processing.results import Level, Quantity
from service.result_files import write_result

_MAPS = {Quantity.T1RHO: "t1rho-atlas.dcm", Quantity.T2: "t2-atlas.dcm"}


_MADE: list[Path] = []


def one_result(folder: Path) -> Path:
    """A written result, made once for all modules."""
    if not _MADE:
        _, images, result = measured_phantom(folder / "source", n_slices=5)
        write_result(result, images, folder / "result")
        _MADE.append(folder / "result")
    return _MADE[0]


class CohortSite:
    """Scans of subjects; ``effect`` of a scan is added in a ball of 5 mm in L4/L5's nucleus, ms."""

    def __init__(self, template: Path, folder: Path, seed: int = 1) -> None:
        self.folder = folder
        self._template = template
        self._rng = np.random.default_rng(seed)
        self._rows: list[dict[str, object]] = []
        images = [pydicom.dcmread(path) for path in sorted((template / "dicom").glob("atlas-[0-9]*.dcm"))]
        self._labels = np.stack([image.pixel_array for image in images])
        spacing = np.array([4.0, *images[0].PixelSpacing], float)
        places = np.argwhere(self._labels == int(Level.L4L5) * 10 + 1)
        centre = places.mean(axis=0)
        distance = np.sqrt((((np.indices(self._labels.shape).T - centre) * spacing) ** 2).sum(axis=-1)).T
        self.ball = (distance <= 5) & (self._labels // 10 == int(Level.L4L5))

    def add(self, subject: str, visit: str = "BL", effect: float = 0.0, shift: float = 0.0, **columns: object) -> None:
        """One scan, its row of the table and its result."""
        name = f"{subject}-{visit}"
        out = self.folder / name
        (out / "dicom").mkdir(parents=True)
        shutil.copy(self._template / "result.json", out)
        for path in (self._template / "dicom").glob("*atlas*.dcm"):
            if path.name not in _MAPS.values():
                shutil.copy(path, out / "dicom")
        noise = ndimage.gaussian_filter(self._rng.standard_normal(self._labels.shape), [0.5, 1.2, 1.2])
        noise *= 6 / noise.std()
        for quantity, file in _MAPS.items():
            if not (self._template / "dicom" / file).is_file():  # T1rho alone
                continue
            dataset = pydicom.dcmread(self._template / "dicom" / file)
            values = (80 if quantity is Quantity.T1RHO else 60) + noise + shift + effect * self.ball
            values = np.where(self._labels > 0, values, 0).astype(np.float32)
            dataset.FloatPixelData = values.tobytes()
            dataset.save_as(out / "dicom" / file)
        self._rows.append({"subject": subject, "visit": visit, "result": name, **columns})

    def write_table(self, path: Path) -> Path:
        """The table of all scans."""
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, names, restval="")
            writer.writeheader()
            writer.writerows(self._rows)
        return path

    def change_map(self, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
        """Replace the values of both maps of a result; 0 is no value."""
        for file in _MAPS.values():
            path = self.folder / name / "dicom" / file
            dataset = pydicom.dcmread(path)
            values = np.frombuffer(dataset.FloatPixelData, np.float32).reshape(self._labels.shape)
            dataset.FloatPixelData = np.asarray(change(values), np.float32).tobytes()
            dataset.save_as(path)

    def forget(self, name: str, path: str) -> None:
        """A result without one of its objects, as if it had never been made."""
        (self.folder / name / path).unlink()
        document = json.loads((self.folder / name / "result.json").read_text())
        document["objects"] = [one for one in document["objects"] if one["path"] != path]
        (self.folder / name / "result.json").write_text(json.dumps(document))

    def change_version(self, name: str, **versions: str) -> None:
        """Say that a result was made with something else."""
        path = self.folder / name / "result.json"
        document = json.loads(path.read_text())
        document["versions"] |= versions
        path.write_text(json.dumps(document))

    def ball_in(self, regions_shape: tuple[int, ...]) -> np.ndarray:
        """The ball on the grid of L4/L5."""
        inside = np.argwhere(self._labels // 10 == int(Level.L4L5))
        box = tuple(slice(low, high + 1) for low, high in zip(inside.min(axis=0), inside.max(axis=0), strict=True))
        found = self.ball[box]
        assert found.shape == regions_shape
        return found


def levels_of(folder: Path) -> set[Level]:
    """The levels that a result has maps of."""
    return set(read_atlas_maps(folder))
