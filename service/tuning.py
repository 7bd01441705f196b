"""Bayesian optimisation of the registration's parameters with optuna: trials in SQLite, so that a run can go on.

optuna's multivariate tree-structured Parzen estimator needs neither torch nor scikit-learn (its Gaussian process needs
torch). The first trial is the preset that is tuned, so that every run says what was gained.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from processing.disc_pairs import DiscPair
from processing.elastix_parameters import Stages
from processing.registration import RegisteredSignal, RegistrationFailed
from processing.registration_pool import RegistrationPool
from processing.tuning import (
    RANGES,
    Candidate,
    Score,
    candidate_from,
    candidate_of,
    score,
    stages_of,
    tasks_of,
    values_of,
)
from service.progress import Progress

STUDY_NAME = "registration"
STUDY_FILE = "study.sqlite"

_STARTUP_TRIALS = 10  # drawn at random before the estimator is used, and run in full
_OBJECTIVE_SEED = 1


class TuningError(Exception):
    """The tuning cannot start or go on as asked; the message says why."""


@dataclass(frozen=True, slots=True)
class TuningLimits:
    """When a run stops, and what a candidate may cost."""

    trials: int  # in all, those of earlier runs included
    max_cpu_s: float  # mean of a disc; a candidate that takes longer is not chosen
    budget_cpu_s: float | None = None  # of this run's registrations together


@dataclass(frozen=True, slots=True)
class Trial:
    """One line of the history. ``pruned``: given up after some discs, for it did worse than most others."""

    number: int
    candidate: Candidate
    score: Score
    n_discs: int
    pruned: bool
    too_dear: bool

    @property
    def is_eligible(self) -> bool:
        """Whether it may be chosen: all discs registered, none folded, within the cost."""
        return not (self.pruned or self.too_dear or self.score.n_failed or self.score.n_folded)


def tune(
    pairs: Sequence[DiscPair],
    base: Stages,
    pool: RegistrationPool,
    folder: Path,
    limits: TuningLimits,
    *,
    resume: bool,
    at_once: int,
    progress: Progress,
) -> tuple[Trial, ...]:
    """Try candidates until a limit is reached; returns the history, with the trials of earlier runs.

    Raises:
        TuningError: optuna is missing, or the folder holds a study of other discs, or one that is not to be resumed.
    """
    study = _open_study(folder, _identity(pairs, base), resume=resume)
    if not read_history(study):
        study.enqueue_trial(values_of(candidate_of(base)))
    spent_s = 0.0
    history = read_history(study)
    while len(history) < limits.trials and (limits.budget_cpu_s is None or spent_s < limits.budget_cpu_s):
        best = best_trial(history)
        said = f"trial {len(history) + 1} of {limits.trials}" + (f", best L {best.score.loss:.4f}" if best else "")
        progress(said, len(history) / limits.trials)
        trial = study.ask()
        candidate = _suggest(trial)
        outcomes, pruned = _run(trial, tasks_of(pairs, stages_of(candidate, base)), pool, at_once)
        spent_s += _record(study, trial, outcomes, pruned=pruned, limits=limits)
        history = read_history(study)
    progress("done", 1.0)
    return history


def best_trial(history: Sequence[Trial]) -> Trial | None:
    """The eligible trial of the lowest loss."""
    return min((one for one in history if one.is_eligible), key=lambda one: one.score.loss, default=None)


def read_history(study: Any) -> tuple[Trial, ...]:
    """The finished trials of a study, in their order."""
    finished = (one for one in study.trials if "score" in one.user_attrs)
    return tuple(
        Trial(
            number=number,
            candidate=candidate_from(one.params),
            score=Score(**one.user_attrs["score"]),
            n_discs=one.user_attrs["n_discs"],
            pruned=one.user_attrs["pruned"],
            too_dear=one.user_attrs["too_dear"],
        )
        for number, one in enumerate(finished)
    )


def _open_study(folder: Path, identity: str, *, resume: bool) -> Any:
    try:
        import optuna
    except ImportError as error:
        raise TuningError("optuna is missing; install discnode with its extra: pip install 'discnode[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / STUDY_FILE
    if path.exists() and not resume:
        raise TuningError(f"{path} exists; use --resume to go on with it, or another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TuningError(f"{folder} cannot be made: {error.strerror}") from error
    study = optuna.create_study(
        storage=f"sqlite:///{path}",
        study_name=STUDY_NAME,
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS, n_warmup_steps=1),
    )
    # A resumed study draws on: with the same seed it would draw the same candidates again.
    study.sampler = optuna.samplers.TPESampler(
        seed=_OBJECTIVE_SEED + len(study.trials), n_startup_trials=_STARTUP_TRIALS
    )
    for left in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):  # by a run that was stopped
        study.tell(left.number, state=optuna.trial.TrialState.FAIL)
    known = study.user_attrs.get("identity", identity)
    if known != identity:
        raise TuningError(f"{path} was made with other discs, another atlas or another preset; use another folder")
    study.set_user_attr("identity", identity)
    return study


def _identity(pairs: Sequence[DiscPair], base: Stages) -> str:
    """Digest of what a loss depends on beside the candidate."""
    digest = hashlib.sha256(repr([sorted(one.items()) for one in base]).encode())
    for pair in pairs:
        for array in (pair.mask, pair.affine, pair.atlas.mask, pair.atlas.affine):
            digest.update(repr(array.shape).encode() + array.tobytes())
    return digest.hexdigest()


def _suggest(trial: Any) -> Candidate:
    values: dict[str, float] = {}
    for name, (low, high, by_logarithm) in RANGES.items():
        if name == "rigidity_weight":
            values[name] = trial.suggest_float(name, low, high, log=by_logarithm)
        else:
            values[name] = trial.suggest_int(name, int(low), int(high), log=by_logarithm)
    return candidate_from(values)


def _run(
    trial: Any, tasks: Sequence[Any], pool: RegistrationPool, at_once: int
) -> tuple[list[RegisteredSignal | RegistrationFailed], bool]:
    """Register the discs, as many at once as there are processes; stop early when others did clearly better."""
    outcomes: list[RegisteredSignal | RegistrationFailed] = []
    for first in range(0, len(tasks), at_once):
        outcomes += pool.outcomes(tasks[first : first + at_once])
        trial.report(score(outcomes).loss, step=first // at_once)
        if len(outcomes) < len(tasks) and trial.should_prune():
            return outcomes, True
    return outcomes, False


def _record(
    study: Any,
    trial: Any,
    outcomes: Sequence[RegisteredSignal | RegistrationFailed],
    *,
    pruned: bool,
    limits: TuningLimits,
) -> float:
    """Keep what a trial gave; returns the CPU seconds it took."""
    import optuna

    found = score(outcomes)
    too_dear = found.cpu_s > limits.max_cpu_s
    trial.set_user_attr("n_discs", len(outcomes))
    trial.set_user_attr("pruned", pruned)
    trial.set_user_attr("too_dear", too_dear)
    trial.set_user_attr("score", asdict(found))
    # what may not be chosen must not look good to the estimator either
    excess = max(0.0, found.cpu_s / limits.max_cpu_s - 1) + found.n_folded / len(outcomes)
    state = optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE
    study.tell(trial, None if pruned else found.loss + excess, state=state)
    return found.cpu_s * len(outcomes) if math.isfinite(found.cpu_s) else 0.0
