"""Registration: Fig 4 (values before and after), S2 (driven by grey values), S10 and S11 (onto other atlases)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dicom_io.result_reader import UnreadableResult, read_atlas_maps, read_native_maps
from processing.annotations import in_canonical_order
from processing.atlas import NUCLEUS, load_atlas
from processing.deformation_quality import registration_loss
from processing.display import LEVEL_NAMES
from processing.preservation import overlap
from processing.registration import DiscTask, RegistrationFailed, crop_disc
from processing.registration_figures import BeforeAfter, Carried, PatientDisc, before_after_figure, carried_figure
from processing.results import LUMBAR_LEVELS, Alignment, AtlasDisc, Level
from service.cohort.reproduction.compared_scans import ComparedImages, grade_of
from service.cohort.reproduction.item_files import ItemFolder, ItemUnavailable
from service.cohort.reproduction.item_sources import ItemSources
from service.cohort.reproduction.records import Cohort, ReproducedScan
from service.pipeline import open_instruments
from service.reports import words
from service.reports.document import Block, Column, Row, Table

_MASKS, _GREY = "by masks", "by grey values"
#: Grey values of an atlas disc as a healthy one shows on a T2-weighted image: nucleus, annulus, bone.
_HEALTHY_GREY = (1.0, 0.4, 0.6)
_ATLASES = {"S10": "healthy-2", "S11": "degenerated"}
_SHOWN = 3  # discs in the figures of other atlases; the table has all


def figure_4(sources: ItemSources, files: ItemFolder) -> Iterator[Block]:
    """Maps and values of all discs of a typical scan of each cohort before and after registration."""
    for cohort in Cohort:
        scan = _typical(sources, cohort)
        try:
            discs = _before_after(scan, sources)
        except UnreadableResult as error:
            raise ItemUnavailable(f"{scan.subject} of cohort {cohort}: {error}") from error
        if not discs:
            raise ItemUnavailable(f"no disc of {scan.subject} of cohort {cohort} was registered")
        name = f"fig4_{cohort}"
        files.numbers(name, [_before_after_line(scan, disc) for disc in discs])
        who = f"{scan.subject} {scan.visit}".strip()
        heading = f"Fig 4, cohort {cohort}, {who}: before and after registration"
        caption = (
            f"{heading}. Middle slice of each disc in the patient and in the atlas, and the values of the whole disc:"
            " grey before, blue after. The echoes are deformed and fitted then; the numbers are means before → after."
        )
        yield files.figure(name, before_after_figure(discs, heading), caption)


def _typical(sources: ItemSources, cohort: Cohort) -> ReproducedScan:
    """The scan whose mean grade is the median of its cohort, among those with all discs measured."""
    compared = sources.compared(cohort)
    scans = [scan for scan, outcome in compared if len(outcome.annotated) == len(LUMBAR_LEVELS)] or [
        scan for scan, _ in compared
    ]
    ranked = sorted(scans, key=lambda one: (sum(grade_of(one, level) or 0 for level in LUMBAR_LEVELS), one.subject))
    return ranked[len(ranked) // 2]


def _before_after(scan: ReproducedScan, sources: ItemSources) -> list[BeforeAfter]:
    automatic = ComparedImages(scan, sources.settings).automatic
    registered = read_atlas_maps(scan.result)
    discs = []
    for quantity, native in read_native_maps(scan.result).items():
        times, affine = in_canonical_order(native.time_ms, native.affine, scan.subject)
        if times.shape != automatic.shape:
            raise ItemUnavailable(f"the maps of {scan.subject} do not lie on the grid of its segmentation")
        spacing = tuple(float(mm) for mm in np.linalg.norm(affine[:3, :3], axis=0))
        for level, after in registered.items():
            if quantity in after.times_ms:
                before = np.where(automatic == level, times, np.nan).astype(np.float32)
                discs.append(
                    BeforeAfter(
                        level,
                        quantity,
                        before,
                        (spacing[0], spacing[1], spacing[2]),
                        after.times_ms[quantity],
                        after.spacing_mm,
                    )
                )
    return discs


def _before_after_line(scan: ReproducedScan, disc: BeforeAfter) -> dict[str, Any]:
    before, after = disc.values
    return {
        **{"subject": scan.subject, "visit": scan.visit, "level": disc.level.name, "quantity": disc.quantity.value},
        **{"n_before": len(before), "mean_before_ms": float(before.mean()), "sd_before_ms": float(before.std())},
        **{"n_after": len(after), "mean_after_ms": float(after.mean()), "sd_after_ms": float(after.std())},
        "overlap": overlap(before, after),
    }


def figure_s2(sources: ItemSources, files: ItemFolder) -> Iterator[Block]:
    """The same discs, one slice each, registered by their masks and by grey values."""
    discs = _discs(sources, Cohort.A, LUMBAR_LEVELS)
    atlas = load_atlas(2, sources.settings.registration.atlas)
    tasks, places = [], []
    for level, disc in discs:
        of_atlas, of_patient = _grey_images(atlas[level], disc)
        for way, images in ((_MASKS, None), (_GREY, (of_atlas, of_patient))):
            preset = sources.settings.registration.preset
            tasks.append(DiscTask(disc.mask, disc.affine, (), atlas[level], preset=preset, images=images))
            places.append((level, way))
    found = dict(zip(places, _registered(sources, tasks), strict=True))
    rows = [(disc, {way: found[level, way] for way in (_MASKS, _GREY)}) for level, disc in discs]
    files.numbers("figS2", [_carried_line(level, way, one) for (level, way), one in found.items()])
    caption = (
        "Fig S2. The most degenerated disc of each level in cohort A, carried onto the atlas by masks and by grey"
        " values alone, with the same chain and parameters. The atlas has no image of its own: it was given the"
        " grey values of a healthy disc (bright nucleus). What decides the deformation by grey values is what is to be"
        " measured."
    )
    yield files.figure("figS2", carried_figure(rows, "Fig S2: by masks and by grey values", jacobian=False), caption)
    ways = {way: [found[level, way] for level, _ in discs] for way in (_MASKS, _GREY)}
    yield files.table("figS2_table", _carried_table("S2: discs registered by masks and by grey values", ways))


def figures_s10_s11(sources: ItemSources, files: ItemFolder) -> Iterator[Block]:
    """The same discs onto the atlas in use, another healthy one and a degenerated one."""
    usual = sources.settings.registration.atlas
    names = (usual, *(name for name in _ATLASES.values() if name != usual))
    held: dict[Cohort, list[tuple[Level, PatientDisc]]] = {
        Cohort.A: _discs(sources, Cohort.A, LUMBAR_LEVELS),
        Cohort.B: _discs(sources, Cohort.B, (Level.L5S1, Level.L4L5)),
    }
    tasks, places = [], []
    for cohort, discs in held.items():
        for name in names:
            atlas = load_atlas(2 if cohort is Cohort.A else 3, name)
            for level, disc in discs:
                preset = sources.settings.registration.preset
                tasks.append(DiscTask(disc.mask, disc.affine, (), atlas[level], preset=preset))
                places.append((cohort, name, level))
    found = dict(zip(places, _registered(sources, tasks), strict=True))
    lines = [
        {"cohort": cohort.value, **_carried_line(level, f"atlas {name}", one)}
        for (cohort, name, level), one in found.items()
    ]
    files.numbers("figS10-S11", lines)
    for cohort, discs in held.items():
        ways = {f"atlas {name}": [found[cohort, name, level] for level, _ in discs] for name in names}
        kind = "one slice" if cohort is Cohort.A else "all slices"
        title = f"S10, S11, cohort {cohort} ({kind}): the same discs onto {len(names)} atlases"
        yield files.table(f"figS10-S11_{cohort}", _carried_table(title, ways))
    for key, name in _ATLASES.items():
        shown = held[Cohort.A][:_SHOWN]
        rows = [
            (disc, {f"atlas {one}": found[Cohort.A, one, level] for one in dict.fromkeys((usual, name))})
            for level, disc in shown
        ]
        caption = (
            f"Fig {key}. Discs of cohort A carried onto the atlas {usual} and onto {name}, with det J. Above 1 a part"
            " of the patient's disc is compressed into less room in the atlas."
        )
        if name == "degenerated":
            caption += (
                " Its discs are narrow and bulge: what lies in a bulge of the atlas has no like in most patients."
            )
        yield files.figure(
            f"fig{key}", carried_figure(rows, f"Fig {key}: onto the atlas “{name}”", jacobian=True), caption
        )


def _discs(sources: ItemSources, cohort: Cohort, levels: Sequence[Level]) -> list[tuple[Level, PatientDisc]]:
    """Of each level the most degenerated disc of the cohort, by its true mask, cut out with its first image."""
    compared = sources.compared(cohort)
    chosen: dict[str, list[Level]] = {}
    scans = {f"{scan.subject}\x1f{scan.visit}": scan for scan, _ in compared}
    for level in levels:
        shown = list(scans.items())
        worst = max(shown, key=lambda one: (grade_of(one[1], level) or 0, one[0]))
        chosen.setdefault(worst[0], []).append(level)
    discs = []
    for key, own in chosen.items():
        images = ComparedImages(scans[key], sources.settings)
        for level in own:
            if not (images.truth == level).any():
                continue
            mask, affine, box = crop_disc(images.truth == level, images.image.affine)
            grade = grade_of(scans[key], level)
            name = f"{scans[key].subject}, {LEVEL_NAMES[level]}{f', grade {grade}' if grade else ''}"
            image = np.ascontiguousarray(images.image.array[box], np.float32)
            discs.append((level, PatientDisc(name, mask, image, affine)))
    if not discs:
        raise ItemUnavailable(f"no disc of cohort {cohort} could be cut out")
    return sorted(discs, key=lambda one: one[0])


def _grey_images(atlas: AtlasDisc, disc: PatientDisc) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Grey images 0..1 of an atlas disc, as if healthy, and of the patient."""
    nucleus, annulus, bone = _HEALTHY_GREY
    healthy = np.where(atlas.regions == NUCLEUS, nucleus, np.where(atlas.mask > 0, annulus, bone))
    low, high = np.percentile(disc.image, (1, 99.5))
    patient = np.clip((disc.image - low) / max(float(high - low), 1e-6), 0, 1)
    return healthy.astype(np.float32), patient.astype(np.float32)


def _registered(sources: ItemSources, tasks: Sequence[DiscTask]) -> list[Carried]:
    outcomes = open_instruments(sources.settings).registration.outcomes(tasks)
    return [
        Carried(task.atlas, None, one.detail)
        if isinstance(one, RegistrationFailed)
        else Carried(task.atlas, one.alignment)
        for task, one in zip(tasks, outcomes, strict=True)
    ]


def _carried_line(level: Level, way: str, one: Carried) -> dict[str, Any]:
    line: dict[str, Any] = {"level": level.name, "way": way, "failure": one.failure}
    if one.alignment is None:
        return line
    inside = one.alignment.jacobian[one.atlas.mask > 0].astype(np.float64)
    return line | {
        "dice": one.alignment.dice,
        "dice_after_centroid": one.alignment.dice_after_centroid,
        "sd_jacobian": one.alignment.sd_jacobian,
        "mean_jacobian": float(inside.mean()),
        "min_jacobian": one.alignment.min_jacobian,
        "compressed_percent": 100 * float((inside > 1).mean()),
        "n_folded": one.alignment.n_folded,
    }


def _carried_table(title: str, ways: Mapping[str, Sequence[Carried]]) -> Table:
    rows = []
    for way, carried in ways.items():
        done: list[Alignment] = [one.alignment for one in carried if one.alignment is not None]
        jacobian = [
            one.alignment.jacobian[one.atlas.mask > 0].astype(np.float64)
            for one in carried
            if one.alignment is not None
        ]
        cells = [str(len(carried)), str(len(carried) - len(done))]
        if done:
            dice, spread = [one.dice for one in done], [one.sd_jacobian for one in done]
            cells += [
                f"{words.number(float(np.mean(dice)), 3)} ({words.number(min(dice), 3)})",
                f"{words.number(float(np.mean(spread)), 3)} ({words.number(max(spread), 3)})",
                words.number(float(np.mean([one.mean() for one in jacobian])), 2),
                words.number(100 * float(np.mean([(one > 1).mean() for one in jacobian])), 0),
                str(sum(one.n_folded for one in done)),
                words.number(registration_loss(done), 3),
            ]
        else:
            cells += [words.NONE] * 6
        rows.append(Row(way, tuple(cells)))
    heads = ("way", "discs", "failed", "Dice (least)", "SD det J (most)", "mean det J", "compressed (%)", "folded", "L")
    note = (
        "det J is the volume in the patient per volume in the atlas: where it is above 1, the patient's disc is"
        " compressed."
        " L = mean of 1 − Dice + SD(det J), the paper's measure. Folded: voxels with det J ≤ 0."
    )
    return Table(title, tuple(Column(one) for one in heads), tuple(rows), note)
