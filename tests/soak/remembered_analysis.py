"""The real analysis, whose native computations are remembered by their exact input: a campaign can be run again.

What the networks answer and how elastix aligns a disc costs nine tenths of an exam's time and depends on nothing but
what they are given. It is kept in the folder that DISCNODE_REMEMBERED names; everything around it is computed anew.
"""

import hashlib
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from config.settings import Settings
from models.inference import OnnxModel
from models.registry import ModelRecord, load_model
from processing.refusal import Reason
from processing.registration import DiscTask, RegisteredSignal
from processing.registration_pool import RegistrationPool
from service import pipeline
from service.progress import Progress, log_progress
from service.result_files import ResultSummary


def analyse(
    paths: Sequence[Path],
    out: Path,
    settings: Settings,
    produced_at: datetime,
    *,
    progress: Progress = log_progress,
    **said: Any,
) -> ResultSummary:
    """As :func:`service.pipeline.analyse_job`."""
    warm_up(settings)
    return pipeline.analyse_job(paths, out, settings, produced_at, progress=progress, **said)


def warm_up(settings: Settings) -> None:
    """Put the remembering instruments in the place of the usual ones; what they need is opened when it is asked."""
    if _OPEN:
        return
    memory = Path(os.environ["DISCNODE_REMEMBERED"])
    memory.mkdir(parents=True, exist_ok=True)
    record = load_model(settings.segmentation.model, settings.segmentation.weights_dir)
    _OPEN.append(
        pipeline.Instruments(
            cast(OnnxModel, _Networks(record, settings, memory)), cast(RegistrationPool, _Aligner(settings, memory))
        )
    )
    pipeline.open_instruments = lambda _: _OPEN[0]


_OPEN: list[pipeline.Instruments] = []


class _Networks:
    """As OnnxModel."""

    def __init__(self, record: ModelRecord, settings: Settings, memory: Path) -> None:
        self.record, self._settings, self._memory = record, settings, memory
        self.n_members = len(record.members)
        self.provider = "CPUExecutionProvider"

    @cached_property
    def _model(self) -> OnnxModel:
        return OnnxModel(self.record, threads=self._settings.segmentation.threads, device="cpu")

    def predict(self, slices: Any) -> Any:
        return self._recall("predict", slices, lambda: self._model.predict(slices))

    def predict_members(self, slices: Any) -> Any:
        return self._recall("members", slices, lambda: self._model.predict_members(slices))

    def _recall(self, what: str, slices: Any, compute: Callable[[], Any]) -> Any:
        return recall(self._memory, (what, self.record.sha256, slices), compute)


class _Aligner:
    """As RegistrationPool, as far as the pipeline uses it."""

    def __init__(self, settings: Settings, memory: Path) -> None:
        self._settings, self._memory = settings, memory

    @cached_property
    def _pool(self) -> RegistrationPool:
        registration = self._settings.registration
        return RegistrationPool(registration.processes, deadline_s=registration.deadline_s)

    def align(self, tasks: Sequence[DiscTask]) -> tuple[tuple[RegisteredSignal, ...], tuple[Reason, ...]]:
        return cast(
            tuple[tuple[RegisteredSignal, ...], tuple[Reason, ...]],
            recall(self._memory, ("align", tuple(tasks)), lambda: self._pool.align(tasks)),
        )


def recall(memory: Path, given: object, compute: Callable[[], Any]) -> Any:
    """What was computed from the same before, or else now."""
    state = hashlib.sha256()
    _feed(state, given)
    path = memory / f"{state.hexdigest()}.pickle"
    if path.exists():
        return pickle.loads(path.read_bytes())
    made = compute()
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(pickle.dumps(made))
    partial.replace(path)
    return made


def _feed(state: Any, value: object) -> None:
    """Every value in it, and of what kind it is."""
    if isinstance(value, np.ndarray):
        state.update(f"{value.dtype} {value.shape}".encode())
        state.update(np.ascontiguousarray(value).tobytes())
    elif is_dataclass(value):
        for one in fields(value):
            state.update(one.name.encode())
            _feed(state, getattr(value, one.name))
    elif isinstance(value, Mapping):
        for key in sorted(value):
            _feed(state, (key, value[key]))
    elif isinstance(value, tuple | list):
        state.update(f"{len(value)}".encode())
        for item in value:
            _feed(state, item)
    else:
        state.update(repr(value).encode())
