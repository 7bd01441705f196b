"""``discnode train run``: one network on simulated slices, then one for each fold; checkpoints, and figures at the end.

A run folder holds ``run.json`` (what the run is), ``folds.json``, the pools of simulated slices, ``pretrained.pt`` and
``fold-N.pt`` (checkpoints), ``fold-N.json`` (what member N does on its held-out subjects, when it is done) and at last
``metrics.json``. A run that was stopped goes on from its checkpoints and ends with the same weights.
"""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from config.settings import Settings
from models.training.dataset import FOLDS, MANIFEST, DataError, Manifest, load_slices, read_manifest
from models.training.evaluate import Tally, tally
from models.training.folds import Folds, read_folds
from models.training.members import checkpoint_bytes, cuda_is_there, is_finished, predictor
from models.training.recipes import Recipe
from models.training.slices import TrainingSlice, split_by_subject
from models.training.train import TrainingPlan, train
from service.training.parallel import Task, run_tasks
from service.training.phantoms import BYTES_PER_SLICE, frozen_phantoms, phantom_slices
from service.training.prepare import prepare
from service.training.publish import exclusively, write_text
from service.training.run_error import RunError

Say = Callable[[str], None]

FORMAT = "discnode.run/1"
RUN, METRICS = "run.json", "metrics.json"
PRETRAINED = "pretrained.pt"


@dataclass(frozen=True, slots=True)
class Run:
    """What a run is. Without real data ``prepared`` is None and ``folds`` only counts the members."""

    recipe: Recipe
    out: Path
    prepared: Path | None
    manifest: Manifest | None
    folds: Folds

    @property
    def members(self) -> int:
        """How many networks it makes."""
        return len(self.folds)

    def plan(self, member: int) -> TrainingPlan:
        """The plan of one member, counted from 0."""
        if self.manifest is None:
            return self.recipe.member_plan(member, real_slices=0)
        counts = self.manifest.slice_counts
        learnt = sum(count for name, count in counts.items() if name not in self.folds[member])
        return self.recipe.member_plan(member, real_slices=learnt)

    def record(self) -> dict[str, Any]:
        """What must not change between a stopped run and the call that goes on with it."""
        return {
            "format": FORMAT,
            "recipe": asdict(self.recipe),
            "data_digest": None if self.manifest is None else self.manifest.digest,
            "folds": [list(group) for group in self.folds],
        }


def checkpoint_of(out: Path, member: int) -> Path:
    """Where member ``member`` (counted from 0) keeps its state."""
    return out / f"fold-{member + 1}.pt"


def figures_of(out: Path, member: int) -> Path:
    """Where the figures of member ``member`` stand once it is done."""
    return out / f"fold-{member + 1}.json"


def open_run(recipe: Recipe, data: Path | None, out: Path, *, settings: Settings, folds: int | None, say: Say) -> Run:
    """Find or prepare the data and divide the subjects.

    Raises:
        DataError, AnnotationError: the data cannot be used.
        RunError: a prepared folder with another number of folds than asked for.
    """
    if recipe.fold.device == "cuda" and not cuda_is_there():
        raise RunError(f"the profile {recipe.name} needs a CUDA device, and torch finds none")
    if data is None and not recipe.phantoms:
        raise RunError(f"the profile {recipe.name} needs annotated exams: --data")
    if data is None:
        say("no real data: every member is trained on simulated slices alone")
        return Run(recipe, out, None, None, ((),) * (folds or 5))
    prepared = data
    if not (data / MANIFEST).is_file():
        prepared = out / "prepared"
        prepare(data, prepared, settings=settings, folds=folds or 5, say=say)
    manifest, groups = read_manifest(prepared), read_folds(prepared / FOLDS)
    if folds is not None and len(groups) != folds:
        raise RunError(f"{prepared} is divided into {len(groups)} folds, asked for are {folds}: prepare it anew")
    unknown = {name for group in groups for name in group} ^ set(manifest.subjects)
    if unknown:
        raise DataError(f"{prepared}: {FOLDS} and {MANIFEST} name different subjects: {', '.join(sorted(unknown))}")
    return Run(recipe, out, prepared, manifest, groups)


def start(run: Run, *, resume: bool) -> None:
    """Note down what the run is, or check that a stopped one is the same.

    Raises:
        RunError: there is a run already and ``resume`` was not asked for, it is another one, or the disk is too small.
    """
    run.out.mkdir(parents=True, exist_ok=True)
    held = run.out / RUN
    begun = held.exists() or any(checkpoint_of(run.out, member).exists() for member in range(run.members))
    if begun and not resume:
        raise RunError(f"{run.out} holds a run already; go on with it with --resume or choose another --out")
    record = json.loads(json.dumps(run.record()))
    if held.exists():
        differing = [name for name, value in json.loads(held.read_text("utf-8")).items() if record.get(name) != value]
        if differing:
            raise RunError(f"{run.out} holds a run with another {', '.join(differing)}: choose another --out")
    if run.prepared is not None:
        if (run.out / FOLDS).exists() and read_folds(run.out / FOLDS) != run.folds:
            raise RunError(f"{run.out} holds a run with other folds: choose another --out")
        write_text(run.out / FOLDS, (run.prepared / FOLDS).read_text("utf-8"))
    checkpoints = (run.members + 1) * 2 * checkpoint_bytes(run.recipe.fold)
    needed = checkpoints + run.recipe.phantoms * BYTES_PER_SLICE * (1 if run.manifest else run.members)
    there = [*run.out.glob("*.pt"), *run.out.glob("phantoms-*.npz")]
    needed -= sum(one.stat().st_size for one in there)
    free = shutil.disk_usage(run.out).free
    if free < needed:
        raise RunError(f"{run.out}: {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free")
    write_text(held, json.dumps(record, indent=1) + "\n")


def train_run(run: Run, *, only: int | None, processes: int, say: Say) -> dict[str, Any] | None:
    """Train what is not trained yet, ``processes`` members at a time; the metrics once every member is done.

    ``only``: just this member, counted from 0; the first stage is done before it if need be.

    Raises:
        TaskFailed: a member stopped; its checkpoint is kept.
    """
    members = [only] if only is not None else list(range(run.members))
    waiting = [member for member in members if not figures_of(run.out, member).exists()]
    first = run.recipe.pretrain
    drawing = processes * max(1, run.recipe.loaders)
    if run.manifest is not None and waiting:
        _phantoms(run, drawing, say)  # draws them if need be
        if first is not None and not is_finished(run.out / PRETRAINED, first):
            run_tasks([Task("simulated slices", pretrain, (run, first))], 1)
    for member in waiting if run.manifest is None else ():
        _stream(run, member, drawing, say)
    run_tasks([Task(f"member {member + 1}", train_member, (run, member)) for member in waiting], processes)
    left = [member + 1 for member in range(run.members) if not figures_of(run.out, member).exists()]
    if left:
        say(f"still to train: member {', '.join(map(str, left))}")
        return None
    metrics = collect_metrics(run)
    write_text(run.out / METRICS, json.dumps(metrics, indent=1) + "\n")
    return metrics


def pretrain(run: Run, plan: TrainingPlan, say: Say) -> None:
    """The first stage, on simulated slices alone."""
    recipe = run.recipe
    with exclusively(run.out / PRETRAINED):
        phantoms = _phantoms(run, 1, say)
        train(plan, phantoms, checkpoint=run.out / PRETRAINED, report=say, loader_processes=recipe.loaders)


def train_member(run: Run, member: int, say: Say) -> None:
    """One member: train it, ask it about the subjects it has not seen and about the frozen simulated slices."""
    training, held_out = _real_slices(run, member)
    plan = run.plan(member)
    if run.manifest is None:
        phantoms, initial = _stream(run, member, 1, say), None
    else:
        phantoms = _phantoms(run, 1, say)
        initial = None if run.recipe.pretrain is None else run.out / PRETRAINED
    checkpoint = checkpoint_of(run.out, member)
    with exclusively(checkpoint):
        network, losses = train(
            plan,
            phantoms,
            training,
            initial=initial,
            checkpoint=checkpoint,
            report=say,
            loader_processes=run.recipe.loaders,
        )
    predict = predictor(network.to(plan.device))
    counted = tally(predict, held_out)
    frozen = tally(predict, frozen_phantoms(run.recipe.frozen_phantoms))
    figures = {
        "member": member + 1,
        "plan": asdict(plan),
        "held_out": list(run.folds[member]),
        "training_slices": len(training),
        "mean_loss_of_last_25_steps": float(np.mean(losses[-25:])) if losses else None,
        "held_out_counts": counted.to_json(),
        "frozen_counts": frozen.to_json(),
    }
    write_text(figures_of(run.out, member), json.dumps(figures, indent=1) + "\n")
    if held_out:
        said = counted.figures()
        say(f"held-out subjects: disc Dice {said.dice['disc']:.3f}, {said.discs_found} of {said.discs} discs found")


def collect_metrics(run: Run) -> dict[str, Any]:
    """What the members do on subjects and simulated slices that they have not seen, one by one and pooled."""
    members = [json.loads(figures_of(run.out, member).read_text("utf-8")) for member in range(run.members)]
    held_out = [Tally.from_json(one.pop("held_out_counts")) for one in members]
    frozen = [Tally.from_json(one.pop("frozen_counts")) for one in members]
    for one, real, simulated in zip(members, held_out, frozen, strict=True):
        one["held_out_figures"] = _plain(asdict(real.figures())) if real.slices else None
        one["frozen_phantoms"] = _plain(asdict(simulated.figures()))
    pooled = sum(held_out, Tally.empty())
    manifest = run.manifest
    return {
        "format": "discnode.metrics/1",
        "recipe": asdict(run.recipe),
        "data": None if manifest is None else _data_figures(manifest),
        "out_of_fold": _plain(asdict(pooled.figures())) if pooled.slices else None,
        "frozen_phantoms_single_members": _plain(asdict(sum(frozen, Tally.empty()).figures())),
        "members": members,
    }


def _data_figures(manifest: Manifest) -> dict[str, Any]:
    names = sorted({exam.dataset for exam in manifest.exams})
    return {
        "digest": manifest.digest,
        "layouts": sorted({exam.layout for exam in manifest.exams}),
        "datasets": {name: sum(exam.dataset == name for exam in manifest.exams) for name in names},
        "subjects": len(manifest.subjects),
        "exams": len(manifest.exams),
        "slices": sum(exam.slices for exam in manifest.exams),
    }


def _phantoms(run: Run, processes: int, say: Say) -> list[TrainingSlice]:
    """The simulated slices that all members learn from beside their real ones, if the recipe wants any."""
    recipe = run.recipe
    return phantom_slices(recipe.phantoms, recipe.phantom_seed, run.out, processes, say) if recipe.phantoms else []


def _stream(run: Run, member: int, processes: int, say: Say) -> list[TrainingSlice]:
    """Without real data the members differ in what they learn from: streams of simulated slices that share none."""
    recipe = run.recipe
    return phantom_slices(max(2, recipe.phantoms // 2), recipe.phantom_seed + member, run.out, processes, say)


def _real_slices(run: Run, member: int) -> tuple[list[TrainingSlice], list[TrainingSlice]]:
    if run.manifest is None or run.prepared is None:
        return [], []
    return split_by_subject(load_slices(run.prepared, run.manifest), run.folds[member])


def _plain(value: Any) -> Any:
    """``value`` as strict JSON can hold it: what is not a number becomes null."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
