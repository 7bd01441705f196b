"""Freezing a trial: from then on only results of one program, one set of weights, one atlas and one plan count."""

import hashlib
from collections.abc import Mapping
from typing import Any

from config.settings import Settings
from config.trial_plans import TrialPlan
from models.registry import load_model
from processing.precision_profile import read_precision
from service.trials.registry import Trial
from service.versions import pipeline_versions


def frozen_versions(settings: Settings, trial: Trial) -> dict[str, Any]:
    """What measures the trial's exams now, for the record: versions as in every result, and the plan's hash.

    Raises:
        SettingsError: the plan's precision profile cannot be used.
        models.registry.ModelError: the weights are not there, or not those that are registered.
    """
    record = load_model(settings.segmentation.model, settings.segmentation.weights_dir)
    protocols = tuple(trial.plan.protocol.split(" + "))
    return {
        "versions": pipeline_versions(settings, record, protocols),
        "plan_sha256": trial.plan_sha256,
        "precision_sha256": precision_sha256(trial.plan),
    }


def precision_sha256(plan: TrialPlan) -> str:
    """Digest of what changes are judged with: a plan names its precision only, and a site's own file can be edited.

    Raises:
        SettingsError: the profile cannot be used.
    """
    return hashlib.sha256(repr(read_precision(plan.change.precision)).encode()).hexdigest()


#: Names of versions for people; the others are told by their own.
NAMES = {
    "discnode": "discnode",
    "model_sha256": "weights",
    "atlas_sha256": "atlas",
    "pipeline_digest": "settings",
    "protocol": "protocol card",
}
_SHORT = 12


def what_differs(freeze: Mapping[str, Any], versions: Mapping[str, str]) -> tuple[str, ...]:
    """What made a result and is not as frozen, in words; a version that the result does not tell is not as frozen."""
    found = []
    for name, frozen in freeze["versions"].items():
        here = versions.get(name, "")
        if here != frozen:
            found.append(f"{NAMES.get(name, name)} {_short(here)} instead of {_short(frozen)}")
    return tuple(found)


def _short(text: str) -> str:
    return "not told" if not text else text if len(text) <= 2 * _SHORT else f"{text[:_SHORT]}…"
