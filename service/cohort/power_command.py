"""``discnode cohort power``: subjects that a trial needs, by a few numbers or by the model of a finished run."""

import argparse
import csv
import sys
from collections.abc import Sequence

import numpy as np

from processing.atlas import read_atlas
from processing.cohort.design import DesignError, FloatArray
from processing.cohort.map_power import MapAssumptions, MapPower, ball_in, simulate_map_power
from processing.cohort.power import (
    PowerEstimate,
    TrialAssumptions,
    check_assumptions,
    dropout_by_visit,
    make_assumptions,
    simulate_power,
    smallest_n,
)
from processing.display import RESEARCH_USE_ONLY
from processing.results import Level
from service.cohort.models import ModelFinding
from service.cohort.table import CohortError

_OK, _USAGE = 0, 2
_SIZES_OF_MAPS = (10, 15, 20, 30, 40)


def tell_power(options: argparse.Namespace) -> int:
    """The command; its options are those of :func:`service.cohort.power_options.add_power`."""
    if options.map is not None:
        return _map_power(options)
    if options.simulations is None:
        options.simulations = 4000
    try:
        assumed = _assumed(options)
        rows = _simulated(options, assumed)
    except (CohortError, DesignError) as error:
        print(error, file=sys.stderr)
        return _USAGE
    names = assumed.visits or ("",) * len(assumed.covariance)
    sds = ", ".join(
        f"{value**0.5:.1f} {name and f'({name})'}".strip()
        for value, name in zip(assumed.covariance.diagonal(), names, strict=True)
    )
    gone = ", ".join(f"{100 * one:.0f}" for one in assumed.missing)
    print(
        f"Effect {assumed.effect_ms:g} ms at the last visit; SD {sds} ms; left {gone} %; two-sided α {assumed.alpha:g}"
    )
    print(f"Repeated measures, unstructured, Kenward-Roger; {options.simulations} trials each, seed {options.seed}")
    print(f"{'wanted':>8} {'n a group':>10} {'power':>8}   95 % interval")
    for wanted, one in rows:
        told = f"{100 * wanted:.0f} %" if wanted else ""
        if one is None:
            print(f"{told:>8} {'> 4000':>10}")
            continue
        print(
            f"{told:>8} {one.n_per_group:>10} {100 * one.power:>6.1f} %   {100 * one.low:.1f} to {100 * one.high:.1f} %"
        )
        if one.n_unfitted:
            print(f"{'':>8} {one.n_unfitted} trials could not be fitted and count as not significant")
    print(RESEARCH_USE_ONLY)
    if options.out is not None:
        _write(options, assumed, rows)
    return _OK


def _simulated(options: argparse.Namespace, assumed: TrialAssumptions) -> list[tuple[float, PowerEstimate | None]]:
    """Wanted power (0: the size was given) and what was found."""
    if not 50 <= options.simulations <= 200_000:
        raise DesignError("--simulations: 50 to 200000")
    how = {"simulations": options.simulations, "seed": options.seed}
    if options.n:
        return [(0.0, simulate_power(assumed, n, **how)) for n in options.n]
    rows: list[tuple[float, PowerEstimate | None]] = []
    for wanted in (0.8, 0.9):
        found = smallest_n(assumed, wanted, **how)
        rows.append((wanted, found[-1] if found else None))
    return rows


def _assumed(options: argparse.Namespace) -> TrialAssumptions:
    if not 0 < options.alpha < 0.5:
        raise DesignError("--alpha: above 0 and below 0.5")
    if (options.run is None) == (options.sd is None):
        raise DesignError("give either --sd, or --run and --model")
    if options.run is not None:
        return assumed_of_run(options)
    return make_assumptions(
        options.sd,
        options.correlation,
        options.effect,
        dropout=options.dropout or (0.0,),
        baseline_correlation=options.baseline_correlation,
        alpha=options.alpha,
    )


def assumed_of_run(options: argparse.Namespace) -> TrialAssumptions:
    """Covariance and missing visits of a model that was fitted; missing ones as if subjects had left for good."""
    from service.cohort.run_folder import models_of

    found = [one for one in models_of(options.run) if one.name == options.model and options.level in ("", one.level)]
    if len(found) != 1:
        held = ", ".join(f"{one.name} at {one.level}" for one in models_of(options.run)) or "none"
        raise CohortError(f"{options.run}: {len(found)} models are so called; it holds {held}")
    one = found[0]
    if len({occasion.level for occasion in one.occasions}) > 1:
        raise CohortError(f"{one.name}: levels together have no single last visit; take a model of one level")
    m = len(one.occasions)
    adjusted = int(one.response == "change")
    others = len(one.terms) - (len(one.groups) + adjusted) * m
    covariance, n_known = np.array(one.covariance), list(one.n_known)
    visits = tuple(occasion.visit for occasion in one.occasions)
    is_value = one.response == "value" and one.baseline != ""
    if is_value:
        covariance, n_known, visits = _as_changes(one, covariance)
    missing: list[float] = []
    for n in n_known:
        missing.append(max(1 - n / one.n_begun, *missing[-1:], 0.0))
    if options.dropout:
        before = [0.0] if is_value else []
        missing = [*before, *dropout_by_visit(options.dropout, m - len(before))]
    return check_assumptions(
        TrialAssumptions(covariance, options.effect, tuple(missing), adjusted + others, options.alpha, visits)
    )


def _as_changes(one: ModelFinding, covariance: FloatArray) -> tuple[FloatArray, list[int], tuple[str, ...]]:
    """Of values with a baseline visit: it first, then the changes from it, whose last is what groups are asked for.

    The model of values is that of baseline and changes: one is a combination of the other, both unstructured.
    """
    visits = [occasion.visit for occasion in one.occasions]
    first = visits.index(one.baseline)
    order = [first, *(place for place in range(len(visits)) if place != first)]
    turn = np.eye(len(visits))[order]
    turn[1:, first] -= 1
    names = one.baseline, *(f"change at {visits[place]}" for place in order[1:])
    return turn @ covariance @ turn.T, [one.n_known[place] for place in order], names


def _map_power(options: argparse.Namespace) -> int:
    """Of the largest t of a level's maps, at several sizes."""
    simulations = options.simulations or 500
    try:
        if options.sd is None or len(options.sd) != 1 or options.run is not None:
            raise DesignError("--map needs one --sd: of a voxel over subjects, ms")
        if not 50 <= simulations <= 20_000:
            raise DesignError("--simulations: 50 to 20000 of maps")
        assumed = _of_atlas(options)
        rows = [
            simulate_map_power(assumed, n, simulations=simulations, seed=options.seed)
            for n in options.n or _SIZES_OF_MAPS
        ]
    except DesignError as error:
        print(error, file=sys.stderr)
        return _USAGE
    print(
        f"{options.map}: {assumed.effect_ms:g} ms in {int(assumed.ball.sum())} of {int(assumed.mask.sum())} voxels;"
        f" SD {assumed.sd_ms:g} ms, {100 * assumed.shared:.0f} % shared; FWHM {assumed.fwhm_mm:g} mm;"
        f" α {assumed.alpha:g}"
    )
    print(f"Largest t of two groups; {simulations} studies each, seed {options.seed}")
    print(f"{'n a group':>10} {'found':>8}   {'95 % interval':<16} {'of the ball':>11} {'by the mean':>12}")
    for one in rows:
        interval = f"{100 * one.low:.1f} to {100 * one.high:.1f} %"
        shares = f"{100 * one.found:>9.1f} % {100 * one.region_power:>10.1f} %"
        print(f"{one.n_per_group:>10} {100 * one.power:>6.1f} %   {interval:<16} {shares}")
    print(RESEARCH_USE_ONLY)
    if options.out is not None:
        _write_maps(options, assumed, rows)
    return _OK


def _of_atlas(options: argparse.Namespace) -> MapAssumptions:
    """The level's disc of the shipped atlas, the ball about the middle of its nucleus."""
    disc = read_atlas().discs[3][Level[options.map]]
    mask = disc.regions > 0
    z, y, x = (float(one) for one in np.linalg.norm(disc.affine[:3, :3], axis=0))
    ball = ball_in(mask, (z, y, x), np.argwhere(disc.regions == 1).mean(axis=0), options.radius)
    return MapAssumptions(
        mask, ball, (z, y, x), options.sd[0], options.effect, options.fwhm, options.shared, options.alpha
    )


def _write_maps(options: argparse.Namespace, assumed: MapAssumptions, rows: Sequence[MapPower]) -> None:
    names = ("level", "n_per_group", "power", "low", "high", "share_of_ball", "false", "region_power", "threshold_t")
    with options.out.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow((*names, "simulations", "effect_ms", "alpha", "seed", "use"))
        told = (f"{assumed.effect_ms:g}", f"{assumed.alpha:g}", options.seed, RESEARCH_USE_ONLY.lower())
        for one in rows:
            found = (one.power, one.low, one.high, one.found, one.false, one.region_power, one.threshold_t)
            writer.writerow((options.map, one.n_per_group, *found, one.simulations, *told))


def _write(
    options: argparse.Namespace, assumed: TrialAssumptions, rows: Sequence[tuple[float, PowerEstimate | None]]
) -> None:
    names = (
        "wanted",
        "n_per_group",
        "power",
        "low",
        "high",
        "simulations",
        "unfitted",
        "effect_ms",
        "alpha",
        "seed",
        "use",
    )
    with options.out.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        for wanted, one in rows:
            found: tuple[object, ...] = ("",) * 6
            if one is not None:
                found = (one.n_per_group, one.power, one.low, one.high, one.simulations, one.n_unfitted)
            told = (f"{assumed.effect_ms:g}", f"{assumed.alpha:g}", options.seed, RESEARCH_USE_ONLY.lower())
            writer.writerow([wanted or "", *found, *told])
