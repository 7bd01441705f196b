"""Pictures for the benchmark of naming and refusal: spines with known names, and everything that is no lumbar spine.

Every case follows from its seed. Arrays are canonical: (slices, rows to inferior, columns to posterior).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel
import numpy as np
import numpy.typing as npt
import skimage.data
from scipy import ndimage
from skimage.color import rgb2gray

from processing.phantom import SamplingPlane, Variant, draw_anatomy, rasterise, simulate_exam
from processing.phantom_signal import intensity, random_contrast

#: named: every disc must get its name; careful: names may be withheld, a wrong one is a fault; ambiguous: they must be
#: withheld; refused: no measurement at all.
Expected = Literal["named", "careful", "ambiguous", "refused"]
Array = npt.NDArray[np.float32]

#: The lowest annotated disc of this patient is not L5/S1: names are known to nobody.
UNNAMEABLE = frozenset({"241"})
_PHOTOS = (
    *("astronaut", "brick", "camera", "cell", "chelsea", "clock", "coffee", "coins", "grass", "gravel", "horse"),
    *("hubble_deep_field", "immunohistochemistry", "logo", "moon", "page", "retina", "rocket", "text"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One picture: ``image`` (slices, rows, columns), ``levels`` the true names (0 none, 1 = L5S1, ..) or None."""

    family: str
    name: str
    image: Array
    spacing_mm: tuple[float, float, float]
    levels: npt.NDArray[np.uint8] | None
    expected: Expected
    subject: str | None = None  # of a real image, for the member that was not trained on it


def phantom(
    family: str, seed: int, expected: Expected, *, variant: Variant, cut_mm: float | None = None, slices: int = 3
) -> Case:
    """A simulated exam's first image, or its T2-weighted one, in a field of view of 190 to 260 mm."""
    rng = np.random.default_rng([seed, 77])
    kind = ("mapss", "t1rho-fse", "t2")[seed % 3]
    exam = simulate_exam(
        seed,
        n_slices=slices,
        slice_spacing_mm=6.0,
        fov_mm=float(rng.uniform(200, 260)),
        snr=float(rng.uniform(15, 60)),
        protocol="t1rho-fse" if kind == "t1rho-fse" else "mapss",
        subject=f"NAMES-{seed}",
        variant=variant,
        cut_mm=cut_mm,
    )
    image = exam.signal[0]
    if kind == "t2":
        fine = exam.anatomy_image.array
        image = fine.reshape(slices, fine.shape[1] // 2, 2, fine.shape[2] // 2, 2).mean(axis=(2, 4))
    pixel = float(np.linalg.norm(exam.affine[:3, 1]))
    levels = np.where(exam.labels > 0, exam.labels, exam.upper_labels).astype(np.uint8)
    return Case(family, f"{kind} {seed}", image, (6.0, pixel, pixel), levels, expected)


def phantoms(first: int, count: int) -> Iterator[Case]:
    """Full views, spines that vary, and pictures that end above L5S1; ``count`` of each."""
    kinds = {
        "phantom, four lumbar": Variant(n_lumbar=4),
        "phantom, six lumbar": Variant(n_lumbar=6),
        "phantom, lumbarised S1": Variant(lumbarised_s1=True),
        "phantom, flat vertebra": Variant(flat_body=2 + first % 3),
    }
    for seed in range(first, first + count):
        yield phantom("phantom, full view", seed, "named", variant=Variant())
        for family, variant in kinds.items():
            yield phantom(family, seed, "careful", variant=variant, slices=1 + seed % 2)
        missing = Variant(missing_disc=2 + seed % 4)
        yield phantom("phantom, missing disc", seed, "careful", variant=missing, slices=1 + seed % 2)
        cut = np.random.default_rng([seed, 78]).uniform((0.0, -9.0), (45.0, 0.0))
        yield phantom("phantom, L5S1 out of view", seed, "ambiguous", variant=Variant(), cut_mm=float(cut[0]))
        yield phantom("phantom, L5S1 cut through", seed, "careful", variant=Variant(), cut_mm=float(cut[1]), slices=1)


def real_spine(folder: Path, subject: str, slices: int) -> tuple[Array, npt.NDArray[np.uint8], tuple[float, ...]]:
    """Image, levels counted from below and spacing of a SPIDER patient: ``slices`` of them, in-plane halved."""
    image_file, label_file = (nibabel.load(folder / f"{subject}_{kind}.nii.gz") for kind in ("image", "label"))
    image = np.moveaxis(np.asarray(image_file.dataobj, np.float32), 2, 0)
    discs = np.moveaxis(np.asarray(label_file.dataobj), 2, 0) == 1
    parts, count = ndimage.label(discs)
    sizes = ndimage.sum_labels(discs, parts, np.arange(1, count + 1))
    centres = np.array(ndimage.center_of_mass(discs, parts, np.arange(1, count + 1)))
    ranked = [k for k in np.argsort(-centres[:, 1]) if sizes[k] > 0.2 * np.median(sizes)]
    off = [
        centres[k, 2] - (centres[before, 2] + centres[after, 2]) / 2
        for before, k, after in zip(ranked, ranked[1:], ranked[2:], strict=False)
    ]
    extruded = [k for k, columns in zip(ranked[1:], off, strict=False) if columns > 40]
    ranked = [k for k in ranked if k not in extruded]  # a piece of disc in the canal is no level of its own
    levels = np.zeros(discs.shape, np.uint8)
    for number, k in enumerate(ranked, 1):
        levels[parts == k + 1] = number
    row_mm, column_mm, slice_mm = (float(one) for one in image_file.header.get_zooms()[:3])
    chosen = np.unique(np.linspace(1, len(image) - 2, slices).round().astype(int))
    step = float(np.diff(chosen).mean()) if len(chosen) > 1 else 1.0
    rows, columns = image.shape[1] // 2 * 2, image.shape[2] // 2 * 2
    halved = image[chosen, :rows, :columns].reshape(len(chosen), rows // 2, 2, columns // 2, 2).mean(axis=(2, 4))
    return halved, levels[chosen, :rows:2, :columns:2], (slice_mm * step, 2 * row_mm, 2 * column_mm)


def real_spines(folder: Path, first: int) -> Iterator[Case]:
    """Each patient whole, as a field of view of 200 to 240 mm with and without L5S1."""
    for path in sorted(folder.glob("*_image.nii.gz")):
        subject = path.name.removesuffix("_image.nii.gz")
        rng = np.random.default_rng([first, int(subject)])
        image, levels, spacing = real_spine(folder, subject, 3)
        row_mm = spacing[1]
        for family, expected, end_mm in (
            ("real, whole", "named", None),
            ("real, full view", "named", rng.uniform(30, 65)),
            ("real, L5S1 out of view", "ambiguous", -rng.uniform(0, 40)),
        ):
            lowest = np.flatnonzero((levels == 1).any(axis=(0, 2)))
            bottom, top = image.shape[1], 0
            if end_mm is not None:
                edge = lowest.mean() if end_mm > 0 else lowest.min()
                bottom = min(bottom, int(edge + end_mm / row_mm))
                top = max(0, bottom - int(rng.uniform(200, 240) / row_mm))
            rows = slice(top, bottom)
            known: Expected = "careful" if subject in UNNAMEABLE and expected == "named" else expected
            yield Case(
                family,
                subject,
                image[:, rows].copy(),
                (spacing[0], row_mm, spacing[2]),
                levels[:, rows],
                known,
                subject,
            )


def spoiled(case: Case, first: int) -> Iterator[Case]:
    """What a spine must not be taken for once it is turned, mirrored, halved or wrongly scaled."""
    rng = np.random.default_rng([first, *case.name.encode()])
    kind = case.family.split(",")[0]
    image, spacing = case.image[len(case.image) // 2][None], case.spacing_mm
    rows, columns = image.shape[1:]
    for low, high in ((25, 40), (40, 70), (70, 110), (110, 160)):
        angle = float(rng.uniform(low, high) * rng.choice((-1, 1)))
        turned = ndimage.rotate(image, angle, axes=(1, 2), reshape=False, order=1, mode="constant")
        yield Case(f"{kind}, turned {low}-{high} degrees", case.name, turned, spacing, None, "refused", case.subject)
    made = {
        "upside down": image[:, ::-1],
        "front to back": image[:, :, ::-1],
        "turned 180 degrees": image[:, ::-1, ::-1],
        "turned 90 degrees": np.rot90(image, int(rng.choice((1, 3))), (1, 2)),
        "upper half": image[:, : rows // 2],
        "lower half": image[:, rows // 2 :],
        "front half": image[:, :, : columns // 2],
        "back half": image[:, :, columns // 2 :],
        "lower half blank": np.where(np.arange(rows)[:, None] < rows // 2, image, 0),
        "shuffled blocks": _shuffled(image, rng),
    }
    for what, array in made.items():
        yield Case(f"{kind}, {what}", case.name, np.ascontiguousarray(array), spacing, None, "refused", case.subject)
    for what, factor in (("pixels declared half", 0.5), ("pixels declared double", 2.0)):
        declared = (spacing[0], spacing[1] * factor, spacing[2] * factor)
        yield Case(f"{kind}, {what}", case.name, image, declared, None, "refused", case.subject)


def _shuffled(image: Array, rng: np.random.Generator) -> Array:
    """The picture in 4 x 4 blocks, in another order."""
    rows, columns = image.shape[1] // 4, image.shape[2] // 4
    blocks = [image[:, r * rows : (r + 1) * rows, c * columns : (c + 1) * columns] for r in range(4) for c in range(4)]
    order = rng.permutation(16)
    mixed: Array = np.concatenate(
        [np.concatenate([blocks[k] for k in order[4 * r : 4 * r + 4]], axis=2) for r in range(4)], axis=1
    )
    return mixed


def other_pictures(first: int, count: int) -> Iterator[Case]:
    """Noise, blank and photographs; the simulated body in other planes and places; drawn knees, heads and blobs."""
    spacing = (4.0, 0.78125, 0.78125)
    for name in _PHOTOS:
        photo = np.asarray(getattr(skimage.data, name)(), np.float32)
        grey = np.asarray(rgb2gray(photo[..., :3]) if photo.ndim == 3 else photo, np.float32)
        scale = 320 / max(grey.shape)
        small = ndimage.zoom(grey, scale, order=1) if scale < 1 else grey
        yield Case("photograph", name, small[None].astype(np.float32), spacing, None, "refused")
    yield Case("blank", "zero", np.zeros((1, 256, 256), np.float32), spacing, None, "refused")
    yield Case("blank", "constant", np.full((1, 256, 256), 7, np.float32), spacing, None, "refused")
    ramp = np.broadcast_to(np.linspace(0, 1, 256, dtype=np.float32), (1, 256, 256)).copy()
    yield Case("blank", "ramp", ramp, spacing, None, "refused")
    for seed in range(first, first + count):
        rng = np.random.default_rng([seed, 79])
        noise = np.abs(rng.standard_normal((1, 256, 256))).astype(np.float32)
        yield Case("noise", f"white {seed}", noise, spacing, None, "refused")
        soft = ndimage.gaussian_filter(rng.standard_normal((256, 256)), rng.uniform(1, 9))[None]
        yield Case("noise", f"soft {seed}", soft.astype(np.float32), spacing, None, "refused")
        stripes = np.sin(np.arange(256) * rng.uniform(0.1, 0.4))[:, None] * np.ones(256)
        striped = (stripes + 0.3 * rng.standard_normal((256, 256)))[None].astype(np.float32)
        yield Case("noise", f"stripes {seed}", striped, spacing, None, "refused")
        for plane in ("axial", "coronal", "beside the spine", "thorax"):
            yield Case(f"simulated, {plane}", str(seed), _body_plane(plane, rng), spacing, None, "refused")
        for what, draw in (("blobs", _blobs), ("knee", _knee), ("head", _head), ("ladder", _ladder)):
            drawn = ndimage.gaussian_filter(draw(rng), 0.8)
            drawn = np.abs(drawn + 0.03 * rng.standard_normal(drawn.shape))[None].astype(np.float32)
            yield Case(f"drawn, {what}", str(seed), drawn, spacing, None, "refused")


def _body_plane(plane: str, rng: np.random.Generator) -> Array:
    """A simulated subject in a random contrast, in a plane that is not a lumbar mid-sagittal one."""
    anatomy = draw_anatomy(rng)
    left, back, up = np.eye(3) * 0.78125
    middle = np.array(anatomy.discs[int(rng.integers(1, 5))].centre_mm)
    rows, columns, centre = {
        "axial": (back, left, middle),
        "coronal": (-up, left, middle + np.array((0, rng.uniform(-6, 6), 0))),
        "beside the spine": (-up, back, middle + np.array((rng.choice((-1, 1)) * rng.uniform(45, 80), 0, 0))),
        "thorax": (-up, back, np.array(anatomy.discs[8].centre_mm) + np.array((0, 0, 70 + rng.uniform(0, 40)))),
    }[plane]
    tissue = rasterise(anatomy, SamplingPlane(centre - 127.5 * (rows + columns), rows, columns, (256, 256)))
    signal = ndimage.gaussian_filter(intensity(tissue, random_contrast(rng)), 0.6)
    noisy: Array = np.abs(signal + 0.02 * rng.standard_normal(signal.shape))[None].astype(np.float32)
    return noisy


def _ellipse(centre: tuple[float, float], radii: tuple[float, float], turn: float = 0.0) -> npt.NDArray[np.bool_]:
    rows, columns = np.indices((256, 256), dtype=float)
    rows, columns = rows - centre[0], columns - centre[1]
    along, across = rows * np.cos(turn) + columns * np.sin(turn), columns * np.cos(turn) - rows * np.sin(turn)
    inside: npt.NDArray[np.bool_] = (along / radii[0]) ** 2 + (across / radii[1]) ** 2 < 1
    return inside


def _blobs(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    picture = np.full((256, 256), rng.uniform(0, 0.4))
    for _ in range(40):
        radii = rng.uniform(4, 30, 2)
        picture[_ellipse(tuple(rng.uniform(0, 256, 2)), tuple(radii), rng.uniform(0, 3.2))] = rng.uniform(0, 1)
    return picture


def _knee(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Femur, tibia and patella in soft tissue, with bright cartilage between."""
    picture = np.zeros((256, 256))
    wide = rng.uniform(32, 42)
    picture[:, 50:205] = 0.45
    picture[_ellipse((95, 128), (34, wide))] = 0.9
    picture[_ellipse((40, 135), (70, wide * 0.6))] = 0.9
    picture[_ellipse((95, 128), (30, wide - 4)) | _ellipse((40, 135), (66, wide * 0.6 - 3))] = rng.uniform(0.2, 0.8)
    picture[134:150, int(128 - wide) : int(128 + wide)] = 0.9
    picture[140:256, int(132 - wide * 0.6) : int(132 + wide * 0.6)] = rng.uniform(0.2, 0.8)
    picture[_ellipse((85, 70), (24, 11))] = 0.6
    return picture


def _head(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Scalp, skull, folded brain, ventricle, brain stem."""
    picture = np.zeros((256, 256))
    picture[_ellipse((110, 128), (95, 105))] = 0.9
    picture[_ellipse((110, 128), (89, 99))] = 0.05
    brain = _ellipse((108, 128), (83, 92))
    fold = ndimage.gaussian_filter(rng.standard_normal((256, 256)), 5)
    picture[brain] = np.where(fold > 0, 0.7, 0.5)[brain]
    picture[_ellipse((105, 130), (16, 40))] = rng.uniform(0, 1)
    picture[150:256, 140:165] = 0.6
    return picture


def _ladder(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Rungs at even distances between two rails: as regular as a spine, but not one."""
    picture = np.full((256, 256), rng.uniform(0, 0.3))
    step, height = int(rng.uniform(26, 44)), int(rng.uniform(6, 14))
    for row in range(int(rng.uniform(0, 20)), 256, step):
        picture[row : row + height, 90:140] = rng.uniform(0.5, 1)
    picture[:, 84:90] = picture[:, 140:146] = 0.8
    return picture
