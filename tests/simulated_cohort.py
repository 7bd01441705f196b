"""Scans of a reproduction that no pipeline measured: atlas maps made of what was planted, for tests of what follows."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
from phantom_result import made_up_discs, measured_phantom
from scipy import ndimage

from processing.results import LUMBAR_LEVELS, Quantity
from service.cohort.reproduction.effects import ODI_LEVEL, odi_change, planted_effects
from service.cohort.reproduction.records import Cohort
from service.cohort.reproduction.scans import ScanOutcome, scan_of
from service.result_files import write_result

_MAPS = {Quantity.T1RHO: "t1rho-atlas.dcm", Quantity.T2: "t2-atlas.dcm"}
_BY_GRADE_MS = {Cohort.A: -20.0, Cohort.B: -12.0}  # of the nucleus, for each grade


class MadeUpScans:
    """Stands in for :func:`service.cohort.reproduction.scans.measure_scans`; ``refused``: whom it does not measure."""

    def __init__(self, folder: Path, *, noise_ms: float = 5.0, refused: tuple[str, ...] = ()) -> None:
        _, images, result = measured_phantom(folder / "images", n_slices=3)
        self._templates = {}
        for cohort, dimension in ((Cohort.A, 2), (Cohort.B, 3)):
            self._templates[cohort] = folder / f"template-{cohort}"
            of_cohort = replace(result, registered=made_up_discs(dimension))
            write_result(of_cohort, images, self._templates[cohort])
        self._planted = {cohort: planted_effects(cohort) for cohort in Cohort}
        self._noise_ms, self._refused = noise_ms, refused

    def __call__(self, people, folder, *, workers, tell):
        outcomes = []
        for number, one in enumerate(people):
            scan = scan_of(one, folder)
            status = "refused" if one.name in self._refused else "ok"
            if status == "ok":
                self._write(one, scan.result, np.random.default_rng(number))
            outcomes.append(ScanOutcome(scan, status, ("SEGMENTATION_UNCERTAIN: made up",) * (status != "ok"), False))
            tell(one.name, (number + 1) / len(people))
        return tuple(outcomes)

    def _write(self, one, out: Path, rng: np.random.Generator) -> None:
        template = self._templates[one.cohort]
        (out / "dicom").mkdir(parents=True)
        shutil.copy(template / "result.json", out)
        for path in (template / "dicom").glob("*atlas*.dcm"):
            shutil.copy(path, out / "dicom")
        images = [pydicom.dcmread(path) for path in sorted((template / "dicom").glob("atlas-[0-9]*.dcm"))]
        images.sort(key=lambda image: int(image.InstanceNumber))
        labels = np.stack([image.pixel_array for image in images])
        change = odi_change(one.cohort, one.odi)
        share_of = {(effect.variable, effect.level): effect.share for effect in self._planted[one.cohort]}
        for quantity, file in _MAPS.items():
            noise = ndimage.gaussian_filter(rng.standard_normal(labels.shape), [0.5, 0.9, 0.9])
            values = 75.0 + noise * self._noise_ms / noise.std()
            for level, grade in zip(LUMBAR_LEVELS, one.grades, strict=True):
                places = np.argwhere(labels // 10 == level)
                box = tuple(slice(a, b + 1) for a, b in zip(places.min(axis=0), places.max(axis=0), strict=True))
                values[box] += share_of["grade", level] * _BY_GRADE_MS[one.cohort] * (grade - 3)
                if level == ODI_LEVEL:
                    shift = change.t1rho_ms if quantity is Quantity.T1RHO else change.t2_ms
                    values[box] += share_of["odi", level] * shift
            dataset = pydicom.dcmread(out / "dicom" / file)
            dataset.FloatPixelData = np.where(labels > 0, np.maximum(values, 5), 0).astype(np.float32).tobytes()
            dataset.save_as(out / "dicom" / file)
