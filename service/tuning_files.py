"""What a tuning run leaves: the best parameter files, history.csv and history.png."""

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from processing.elastix_parameters import Stages, parameter_files, write_parameters
from processing.tuning import stages_of
from service.tuning import Trial, best_trial


def write_history(folder: Path, history: Sequence[Trial]) -> None:
    """``history.csv``, a row for each trial, and ``history.png``."""
    with (folder / "history.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        names = [*asdict(history[0].candidate), *asdict(history[0].score)]
        writer.writerow(["trial", *names, "n_discs", "pruned", "too_dear"])
        for one in history:
            values = [*asdict(one.candidate).values(), *asdict(one.score).values()]
            numbers = [f"{value:.6g}" if isinstance(value, float) else value for value in values]
            writer.writerow([one.number, *numbers, one.n_discs, int(one.pruned), int(one.too_dear)])
    draw_history(history).savefig(folder / "history.png", metadata={"Software": "discnode"})


def write_best(folder: Path, best: Trial, base: Stages, dimension: int, preset: str) -> tuple[Path, ...]:
    """The parameter files of the best trial, named as ``registration.parameters_dir`` wants them."""
    paths = []
    for shipped, stage in zip(parameter_files(dimension, preset), stages_of(best.candidate, base), strict=True):
        without_seed = {name: values for name, values in stage.items() if name != "RandomSeed"}
        comment = (
            f"Tuned with discnode tune registration on {best.n_discs} discs: L {best.score.loss:.4f}"
            f" (mean Dice {best.score.mean_dice:.4f}, SD of det J {best.score.mean_sd_jacobian:.4f},"
            f" {best.score.cpu_s:.1f} CPU s a disc)."
        )
        paths.append(folder / shipped.name)
        write_parameters(paths[-1], without_seed, comment)
    return tuple(paths)


def draw_history(history: Sequence[Trial]) -> Figure:
    """Left: the loss of each trial and the best so far. Right: what the loss is made of."""
    figure = Figure(figsize=(12, 4.5), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    kinds = (
        ("eligible", "o", "C0", [one for one in history if one.is_eligible]),
        ("given up early", "x", "0.6", [one for one in history if one.pruned]),
        ("too dear, folded or failed", "^", "C1", [one for one in history if not (one.is_eligible or one.pruned)]),
    )
    for label, marker, colour, trials in kinds:
        if trials:
            losses = [one.score.loss for one in trials]
            left.scatter([one.number for one in trials], losses, marker=marker, c=colour, label=label)
    best = [best_trial(history[: end + 1]) for end in range(len(history))]
    left.step(
        range(len(history)),
        [one.score.loss if one else np.nan for one in best],
        where="post",
        color="C2",
        label="best so far",
    )
    left.axhline(history[0].score.loss, color="0.7", linestyle=":", label="the preset (trial 0)")
    left.set(xlabel="trial", ylabel="L = mean(1 − Dice + SD(det J))", yscale="log")
    left.legend(fontsize=8)
    whole = [one for one in history if not one.pruned]
    points = right.scatter(
        [1 - one.score.mean_dice for one in whole],
        [one.score.mean_sd_jacobian for one in whole],
        c=[one.score.cpu_s for one in whole],
        cmap="viridis",
    )
    figure.colorbar(points, ax=right, label="CPU s a disc")
    for label, one, marker in (("preset", history[0], "s"), ("best", best[-1], "*")):
        if one is not None:
            where = (1 - one.score.mean_dice, one.score.mean_sd_jacobian)
            right.scatter(*where, s=180, marker=marker, facecolors="none", edgecolors="C3", label=label)
    right.set(xlabel="1 − mean Dice", ylabel="mean SD(det J)", title="parts of L, trials with all discs")
    right.legend(fontsize=8)
    return figure
