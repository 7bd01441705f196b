"""``discnode cohort power``: subjects that a trial needs, by a few numbers or by the model of a finished run."""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from processing.cohort.design import DesignError
from processing.cohort.power import (
    PowerEstimate,
    TrialAssumptions,
    check_assumptions,
    make_assumptions,
    simulate_power,
    smallest_n,
)
from processing.display import RESEARCH_USE_ONLY
from service.cohort.table import CohortError

_OK, _USAGE = 0, 2


def add_power(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The action and its options."""
    power = actions.add_parser("power", help="subjects that a trial of two groups needs, by simulation of its model")
    power.add_argument("--effect", type=float, required=True, metavar="MS", help="difference at the last visit, ms")
    power.add_argument("--sd", type=_numbers, metavar="MS[,MS...]", help="SD of the change at each visit, ms")
    power.add_argument("--correlation", type=float, default=0.5, help="of the changes of any two visits (0.5)")
    power.add_argument("--dropout", type=_numbers, metavar="SHARE[,SHARE...]",
                       help="share that has left by the last visit, or by each (0)")  # fmt: skip
    power.add_argument("--baseline-correlation", type=float, default=0.0,
                       help="of baseline and change; the model adjusts for it (0: not adjusted)")  # fmt: skip
    power.add_argument("--run", type=Path, help="or: folder of a finished run, whose model gives SDs and dropout")
    power.add_argument("--model", help="its name there")
    power.add_argument("--level", default="", help="its level there, as L4L5, where there are several")
    power.add_argument("--n", type=_counts, metavar="N[,N...]", help="subjects in each group; absent: for 80 and 90 %%")
    power.add_argument("--alpha", type=float, default=0.05, help="two-sided (0.05)")
    power.add_argument("--simulations", type=int, default=4000, help="trials for each size (4000)")
    power.add_argument("--seed", type=int, default=1, help="of the simulation (1)")
    power.add_argument("--out", type=Path, help="CSV file for the table, too")
    power.set_defaults(command=_power)


def _power(options: argparse.Namespace) -> int:
    try:
        assumed = _assumed(options)
        rows = _simulated(options, assumed)
    except (CohortError, DesignError) as error:
        print(error, file=sys.stderr)
        return _USAGE
    sds = ", ".join(f"{value**0.5:.1f}" for value in assumed.covariance.diagonal())
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
        return _of_run(options)
    return make_assumptions(
        options.sd,
        options.correlation,
        options.effect,
        dropout=options.dropout or (0.0,),
        baseline_correlation=options.baseline_correlation,
        alpha=options.alpha,
    )


def _of_run(options: argparse.Namespace) -> TrialAssumptions:
    """Covariance and missing visits of a model that was fitted; missing ones as if subjects had left for good."""
    from service.cohort.run_folder import models_of

    found = [one for one in models_of(options.run) if one.name == options.model and options.level in ("", one.level)]
    if len(found) != 1:
        held = ", ".join(f"{one.name} at {one.level}" for one in models_of(options.run)) or "none"
        raise CohortError(f"{options.run}: {len(found)} models are so called; it holds {held}")
    one = found[0]
    if len({occasion.level for occasion in one.occasions}) > 1:
        raise CohortError(f"{one.name}: levels together have no single last visit; take a model of one level")
    missing, most = [], 0.0
    for n in one.n_known:
        most = max(most, 1 - n / one.n_subjects)
        missing.append(most)
    if options.dropout:
        missing = list(options.dropout)
    m = len(one.occasions)
    baseline = int(one.response == "change")
    others = len(one.terms) - (len(one.groups) + baseline) * m
    covariance = np.array(one.covariance)
    return check_assumptions(
        TrialAssumptions(covariance, options.effect, tuple(missing), baseline + others, options.alpha)
    )


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


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(one) for one in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number, nor several between commas") from error


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(one) for one in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number, nor several between commas") from error
