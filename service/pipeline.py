"""The analysis of one exam, step after step, on one page: read, segment, register, fit, measure, judge, write."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, partial
from pathlib import Path

from config.protocol_cards import asked_elements, load_cards
from config.settings import Settings
from dicom_io.series import AssemblyState, ExamAssembly, assemble_exam
from dicom_io.volume_reader import ExamImages, read_exam
from models.inference import OnnxModel
from models.registry import load_model
from processing.atlas import load_atlas
from processing.correction import correct_discs
from processing.echo_checks import check_echoes
from processing.echoes import check_voxels_agree
from processing.fitting import fit_rules, relaxation_map, rules_text, within
from processing.measurements import measure, volumes_mm3
from processing.members import fit_region
from processing.quality import judge
from processing.refusal import ReasonCode, UnsuitableInput
from processing.registration import disc_tasks, fit_registered
from processing.registration_pool import RegistrationPool
from processing.results import Correction, DiscMask, ExamResult, GivenMask, Level
from processing.segmentation import find_discs
from service.exam_files import ExamFiles, read_exam_files
from service.given_mask import read_given_mask
from service.phantom_exam import measure_phantom, phantom_in
from service.progress import Progress, log_progress
from service.result_files import ResultSummary, write_refusal, write_result
from service.result_versions import Edition
from service.versions import software_versions

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Instruments:
    """What stays open between exams: the networks' sessions and the warm registration processes."""

    model: OnnxModel
    registration: RegistrationPool


@dataclass(slots=True)
class Stopwatch:
    """Wall seconds of each step, and who is told."""

    progress: Progress
    n_steps: int
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step under its name."""
        self.progress(name, len(self.seconds) / self.n_steps)
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 3)


@cache
def _open_instruments(
    model_name: str, weights_dir: Path | None, threads: int, processes: int, deadline_s: float
) -> Instruments:
    model = OnnxModel(load_model(model_name, weights_dir), threads=threads)
    return Instruments(model, RegistrationPool(processes, deadline_s=deadline_s))


def open_instruments(settings: Settings) -> Instruments:
    """The instruments of this process, opened once (an elastix process takes many seconds to load).

    Networks that are installed later are used by processes that start later.

    Raises:
        ModelError: the ensemble of the settings cannot be used.
    """
    segmentation, registration = settings.segmentation, settings.registration
    return _open_instruments(
        segmentation.model,
        segmentation.weights_dir,
        segmentation.threads,
        registration.processes,
        registration.deadline_s,
    )


def warm_up(settings: Settings) -> None:
    """Open the instruments before the first exam comes."""
    open_instruments(settings)


def analyse_job(
    paths: Sequence[Path],
    out: Path,
    settings: Settings,
    produced_at: datetime,
    *,
    progress: Progress = log_progress,
    lowest_disc: Level | None = None,
    mask: Path | None = None,
    edition: Edition | None = None,
) -> ResultSummary:
    """Analyse the DICOM files of one exam and write the results, or the refusal with its reasons, to ``out``.

    Args:
        paths: files or folders.
        out: folder that appears, whole, when the analysis is done.
        settings: the node's settings.
        produced_at: aware time that stands in the objects; the same for every retry, so that they come out identical.
        progress: is told the step and the finished share.
        lowest_disc: which disc is the lowest in view, if a person has said so.
        mask: discs that a person has drawn or changed (:func:`service.given_mask.read_given_mask`), measured in place
            of those that the networks find.
        edition: which earlier result of the exam this one replaces, if there is one.
    """
    files = read_exam_files(paths, asked_elements(load_cards(settings.protocols_dir)))
    try:
        assembly = assemble(files, settings)
        given = None if mask is None else read_given_mask(mask, assembly)
        images = read_exam(assembly)
        if (phantom := phantom_in(images, settings)) is not None:
            return measure_phantom(images, phantom, out, settings, produced_at, progress=progress, edition=edition)
        result = analyse(images, settings, produced_at, progress=progress, lowest_disc=lowest_disc, given=given)
    except UnsuitableInput as refusal:
        reasons = tuple(dict.fromkeys((refusal.reason, *files.refusals)))
        _log.warning("refused %s", " ".join(f"{reason.code}: {reason.detail};" for reason in reasons))
        return write_refusal(reasons, files.facts, out)
    progress("write", 0.95)
    keep = any(destination.deidentify for destination in settings.destinations)
    summary = write_result(result, images, out, settings=settings.report, edition=edition, keep_document=keep)
    progress("done", 1.0)
    return summary


def assemble(files: ExamFiles, settings: Settings) -> ExamAssembly:
    """The exam that the files make up, whole and of a known protocol.

    Raises:
        UnsuitableInput: why they do not; the first of several kinds of reasons.
    """
    if not files.facts and files.refusals:
        raise UnsuitableInput(files.refusals[0].code, files.refusals[0].detail)
    if not files.facts:
        raise UnsuitableInput(ReasonCode.UNREADABLE, "there is no file")
    assembly = assemble_exam(files.facts, load_cards(settings.protocols_dir), repeats=settings.completion.repeats)
    if assembly.state not in (AssemblyState.COMPLETE, AssemblyState.COMPLETE_WITHOUT_EVIDENCE):
        code = assembly.reasons[0].code
        details = [reason.detail for reason in assembly.reasons if reason.code is code]
        raise UnsuitableInput(code, "; ".join(details))
    return assembly


def analyse(
    images: ExamImages,
    settings: Settings,
    produced_at: datetime,
    *,
    progress: Progress = log_progress,
    lowest_disc: Level | None = None,
    given: GivenMask | None = None,
) -> ExamResult:
    """The method of the paper, one step after the other.

    The names are counted up from ``lowest_disc`` if a person has said which disc is the lowest in view. The discs of
    ``given`` are measured if a person has drawn or changed them; the networks' are then only compared with them.

    Raises:
        UnsuitableInput: the images cannot be measured (wrong plane, no discs, doubtful levels).
    """
    instruments = open_instruments(settings)
    watch = Stopwatch(progress, n_steps=6)

    with watch.step("segment"):
        mask, correction = _find_discs(images, instruments.model, settings, lowest_disc, given)

    with watch.step("check echoes"):
        checked = check_echoes(
            images.stacks,
            mask,
            max_motion_mm=settings.echoes.max_motion_mm,
            correct=settings.echoes.correct_motion,
            max_correction_mm=settings.echoes.max_correction_mm,
        )

    with watch.step("fit native"):
        rules, unknown_noise = fit_rules(
            images.stacks,
            noise_floor=settings.fitting.noise_floor == "estimated",
            paper_ceilings=settings.fitting.paper_ceilings,
        )
        fitted = {one.role: relaxation_map(one, fit_region(mask), rules[one.role]) for one in checked.stacks}

    with watch.step("register"):
        atlas = load_atlas(2 if images.background.array.shape[0] == 1 else 3, settings.registration.atlas)
        tasks = disc_tasks(
            mask,
            checked.stacks,
            atlas,
            preset=settings.registration.preset,
            parameters_dir=settings.registration.parameters_dir,
        )
        aligned, failures = instruments.registration.align(tasks)

    with watch.step("fit registered"):
        registered = tuple(fit_registered(signal, rules) for signal in aligned)

    with watch.step("measure"):
        measurements = measure(mask, fitted, registered)
        verdict, reasons = judge(
            mask,
            registered,
            measurements,
            doubts=(*checked.doubts, *unknown_noise, *check_voxels_agree(fitted, mask.levels), *failures),
            min_dice=settings.registration.min_dice,
            max_ring_entropy=settings.segmentation.max_ring_entropy,
            min_member_dice=settings.segmentation.min_member_dice,
            correction=correction,
        )

    return ExamResult(
        verdict=verdict,
        reasons=reasons,
        background=images.background,
        mask=mask,
        maps={quantity: within(one, mask.levels > 0) for quantity, one in fitted.items()},
        registered=registered,
        measurements=measurements,
        volumes_mm3=volumes_mm3(mask),
        times_ms=images.times_ms,
        timings_s=watch.seconds,
        versions=software_versions(
            settings,
            instruments.model,
            images.protocols,
            lowest_disc=lowest_disc,
            given=None if given is None else given.origin,
        )
        | ({"fit": rules_text(rules)} if rules else {}),
        produced_at=produced_at,
        motion=checked.motion,
        correction=correction,
    )


def _find_discs(
    images: ExamImages, model: OnnxModel, settings: Settings, lowest_disc: Level | None, given: GivenMask | None
) -> tuple[DiscMask, Correction | None]:
    """The discs that are measured, and what a person has changed about them."""
    find = partial(
        find_discs, images.background, model, threshold=settings.segmentation.threshold, lowest_disc=lowest_disc
    )
    if given is None:
        return find(), None
    return correct_discs(given, images.background, find, (model.record.name, model.record.sha256))
