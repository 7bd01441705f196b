"""A simulated exam with its true mask, registered by elastix: what the tests of atlas space start from."""

import functools
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from processing.atlas import load_atlas
from processing.fitting import relaxation_map
from processing.phantom import simulate_exam
from processing.registration import align_disc, disc_task, fit_registered
from processing.results import (
    LUMBAR_LEVELS,
    DiscMask,
    EchoStack,
    ExamResult,
    Level,
    Quantity,
    RegisteredDisc,
    RelaxationMap,
    Verdict,
)


@dataclass(frozen=True, slots=True, eq=False)
class RegisteredExam:
    mask: DiscMask
    stacks: tuple[EchoStack, ...]
    maps: dict[Quantity, RelaxationMap]
    registered: tuple[RegisteredDisc, ...]


@functools.cache
def registered_exam(
    seed: int, *, n_slices: int, levels: tuple[Level, ...] = LUMBAR_LEVELS, atlas: str = "healthy", snr: float = 40.0
) -> RegisteredExam:
    """One slice: T1rho FSE, in 2-D; several: MAPSS, in 3-D."""
    exam = simulate_exam(seed, n_slices=n_slices, protocol="t1rho-fse" if n_slices == 1 else "mapss", snr=snr)
    nothing = np.zeros(exam.labels.shape, np.float32)
    mask = DiscMask(exam.labels, nothing, exam.labels, exam.affine, (), "truth", "0" * 64)
    stacks = tuple(
        EchoStack(quantity, np.ascontiguousarray(exam.echoes(quantity)[1]), exam.echoes(quantity)[0], exam.affine)
        for quantity in Quantity
        if quantity in exam.quantities
    )
    maps = {one.role: relaxation_map(one, mask.levels > 0) for one in stacks}
    discs = load_atlas(2 if n_slices == 1 else 3, atlas)
    signals = [align_disc(disc_task(mask, level, stacks, discs[level])) for level in levels]
    return RegisteredExam(mask, stacks, maps, tuple(fit_registered(one) for one in signals))


def result_of(exam: RegisteredExam, **changes: object) -> ExamResult:
    """The result as the pipeline would make it, as far as pictures need it."""
    parts: dict[str, object] = {
        "verdict": Verdict.OK,
        "reasons": (),
        "background": exam.stacks[0].first_echo,
        "mask": exam.mask,
        "maps": exam.maps,
        "registered": exam.registered,
        "measurements": (),
        "volumes_mm3": {},
        "times_ms": {},
        "timings_s": {},
        "versions": {"discnode": "0.1.0", "protocol": "simulated", "atlas": "healthy"},
        "produced_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return ExamResult(**(parts | changes))  # type: ignore[arg-type]
