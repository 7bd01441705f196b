"""``discnode train promote``: a candidate takes the installed model's place only if it is better on the unseen.

Both are asked about slices that they did not learn from: of a subject in a model's folds (``folds.json``) only the
member that did not see it answers; of any other subject the whole ensemble. In a folder of networks ``registry.yaml``
decides what is used; its replacement is the one moment at which the new model takes over. Files of the previous model
stay, and ``registry.previous.yaml`` names them.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from models.inference import OnnxModel
from models.registry import PACKAGED_FOLDER, REGISTRY_FILE, ModelError, ModelRecord, load_model, names
from models.training.dataset import FOLDS, DataError, Manifest, PreparedExam, load_slices, read_manifest
from models.training.evaluate import Evaluation, Tally, tally
from models.training.folds import fold_of_images, read_folds
from models.training.slices import TrainingSlice
from service.training.card import CARD, SIMULATED_ONLY
from service.training.phantoms import frozen_phantoms
from service.training.publish import exclusively, write_text

Say = Callable[[str], None]

PREVIOUS = "registry.previous.yaml"

#: How much the disc Dice on the frozen simulated slices may fall when real subjects get better.
ALLOWED_FALL = 0.02


@dataclass(frozen=True, slots=True)
class Comparison:
    """Pooled figures of two models on the same slices, and what follows."""

    candidate_real: Evaluation | None
    installed_real: Evaluation | None
    candidate_frozen: Evaluation
    installed_frozen: Evaluation

    @property
    def is_better(self) -> bool:
        """Whether the candidate may take the other's place."""
        return not self.objections

    @property
    def objections(self) -> tuple[str, ...]:
        """Why it may not; empty if it may."""
        found = []
        new, old = self.candidate_frozen.dice["disc"], self.installed_frozen.dice["disc"]
        if self.candidate_real is None or self.installed_real is None:
            if not new > old:
                found.append(f"on simulated slices its disc Dice is not better: {new:.4f} against {old:.4f}")
            return tuple(found)
        real_new, real_old = self.candidate_real.dice["disc"], self.installed_real.dice["disc"]
        if not real_new > real_old:
            found.append(f"on held-out subjects its disc Dice is not better: {real_new:.4f} against {real_old:.4f}")
        if not new >= old - ALLOWED_FALL:
            found.append(
                f"on simulated slices its disc Dice falls by more than {ALLOWED_FALL}: {new:.4f} from {old:.4f}"
            )
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Contender:
    """A model with the folder it lies in."""

    record: ModelRecord
    folder: Path

    def fold_of(self, exam: PreparedExam) -> int | None:
        """The member that has not seen this exam's subject; None: none has seen it, the whole ensemble may answer."""
        return fold_of_images(self.folds).get(exam.images_sha256) if self.folds is not None else None

    @property
    def folds(self) -> Path | None:
        """Where the model's folds stand; None: they are not known."""
        places = (self.folder / beside(self.record, FOLDS), self.folder / FOLDS)
        return next((path for path in places if path.is_file()), None)


def beside(record: ModelRecord, file: str) -> str:
    """The name of a file that goes with an installed model: a folder of networks holds several, and their past."""
    return f"{record.name}-{record.sha256[:8]}.{file}"


def promote(
    candidate: Path,
    weights_dir: Path,
    *,
    name: str,
    data: Path | None,
    phantoms: int = 60,
    threads: int = 1,
    say: Say = print,
) -> bool:
    """Install the candidate's model ``name`` in ``weights_dir`` if it is better; whether it was.

    Without ``data`` (a prepared folder) the frozen simulated slices alone decide. Where ``weights_dir`` holds no such
    model yet, the candidate must be better than the packaged one.

    Raises:
        ModelError: a model that cannot be used.
        DataError: data that cannot be used, or a candidate whose folds do not fit its members.
    """
    new = Contender(load_model(name, candidate), candidate)
    old = installed(name, weights_dir)
    if new.record.sha256 == old.record.sha256:
        raise ModelError(f"{name!r} of {candidate} is installed already")
    _check_folds(new)
    say(f"candidate: {_described(new)}")
    say(f"installed: {_described(old)}")
    manifest = read_manifest(data) if data is not None else None
    if manifest is None:
        say("no annotated exams were given: simulated slices alone decide")
    compared = compare(new, old, data, manifest, phantoms=phantoms, threads=threads, say=say)
    if compared.objections:
        for line in compared.objections:
            say(f"not installed: {line}")
        return False
    install(new, weights_dir)
    say(f"installed in {weights_dir}")
    return True


def installed(name: str, weights_dir: Path) -> Contender:
    """The model ``name`` of ``weights_dir``, or the packaged one where it has none.

    Raises:
        ModelError: neither has it, or what is there is damaged.
    """
    if (weights_dir / REGISTRY_FILE).is_file() and name in names(weights_dir):
        return Contender(load_model(name, weights_dir), weights_dir)
    return Contender(load_model(name), PACKAGED_FOLDER)


def compare(
    new: Contender,
    old: Contender,
    data: Path | None,
    manifest: Manifest | None,
    *,
    phantoms: int,
    threads: int,
    say: Say,
) -> Comparison:
    """Ask both the same."""
    frozen = frozen_phantoms(phantoms)
    real: list[Evaluation | None] = []
    simulated: list[Evaluation] = []
    for title, one in (("candidate", new), ("installed", old)):
        whole = OnnxModel(one.record, threads=threads)
        simulated.append(tally(whole.predict, frozen).figures())
        say(f"{title}, {len(frozen)} simulated slices: {_said(simulated[-1])}")
        if data is None or manifest is None:
            real.append(None)
            continue
        answer, note = _ask_about_exams(one, whole, data, manifest, threads)
        real.append(answer)
        say(f"{title}, {answer.slices} slices of {len(manifest.subjects)} subjects: {_said(answer)} ({note})")
    return Comparison(real[0], real[1], simulated[0], simulated[1])


def _ask_about_exams(
    one: Contender, whole: OnnxModel, data: Path, manifest: Manifest, threads: int
) -> tuple[Evaluation, str]:
    """Every exam by the networks that have not seen its subject; and in words who answered."""
    by_member: dict[int | None, list[PreparedExam]] = {}
    for exam in manifest.exams:
        by_member.setdefault(one.fold_of(exam), []).append(exam)
    counted = Tally.empty()
    for member, exams in by_member.items():
        model = whole if member is None else OnnxModel(one.record.only(member), threads=threads)
        counted = counted + tally(model.predict, _slices_of(data, exams))
    alone = sum(len(exams) for member, exams in by_member.items() if member is not None)
    total = len(manifest.exams)
    note = f"{alone} of {total} exams by the one member that has not seen the subject" if alone else "whole ensemble"
    if one.folds is None and one.record.training_data != SIMULATED_ONLY:
        note += "; its folds are not known, it may have seen some"
    return counted.figures(), note


def _slices_of(data: Path, exams: Sequence[PreparedExam]) -> list[TrainingSlice]:
    return load_slices(data, Manifest(tuple(exams)))


def install(new: Contender, weights_dir: Path) -> None:
    """Copy the members, then let the registry name them; the other models of the folder stay as they are."""
    weights_dir.mkdir(parents=True, exist_ok=True)
    name = new.record.name
    with exclusively(weights_dir / REGISTRY_FILE):
        entries = _entries(weights_dir) if (weights_dir / REGISTRY_FILE).is_file() else {}
        entry = _entries(new.folder)[name]
        files = [f"{name}-{index}-{one.sha256[:8]}.onnx" for index, one in enumerate(new.record.members, start=1)]
        # Named by content: a new version never writes over a file that the present registry names.
        for one, file in zip(new.record.members, files, strict=True):
            _copy(one.path, weights_dir / file)
        entry["members"] = [
            {"file": file, "sha256": one.sha256} for one, file in zip(new.record.members, files, strict=True)
        ]
        for source in (FOLDS, CARD):
            if (new.folder / source).is_file():
                _copy(new.folder / source, weights_dir / beside(new.record, source))
        if entries:
            write_text(weights_dir / PREVIOUS, (weights_dir / REGISTRY_FILE).read_text(encoding="utf-8"))
        write_text(weights_dir / REGISTRY_FILE, yaml.safe_dump(entries | {name: entry}, sort_keys=False, width=110))
    load_model(name, weights_dir)


def go_back(weights_dir: Path) -> None:
    """Let the previous registry decide again; the present one becomes the previous.

    Raises:
        DataError: there is no previous registry.
    """
    previous, present = weights_dir / PREVIOUS, weights_dir / REGISTRY_FILE
    with exclusively(present):
        if not previous.is_file():
            raise DataError(f"{weights_dir} holds no {PREVIOUS}: nothing to go back to")
        texts = previous.read_text(encoding="utf-8"), present.read_text(encoding="utf-8")
        write_text(present, texts[0])
        write_text(previous, texts[1])


def _copy(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.writing")
    shutil.copyfile(source, temporary)
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(temporary, target)


def _check_folds(new: Contender) -> None:
    path = new.folder / FOLDS
    if path.is_file() and len(read_folds(path)) != len(new.record.members):
        raise DataError(f"{path} has {len(read_folds(path))} folds, the model {len(new.record.members)} members")


def _entries(folder: Path) -> dict[str, dict[str, object]]:
    held: dict[str, dict[str, object]] = yaml.safe_load((folder / REGISTRY_FILE).read_text(encoding="utf-8")) or {}
    return held


def _described(one: Contender) -> str:
    record = one.record
    return (
        f"{record.name} {record.version}, {len(record.members)} members, {record.sha256[:12]}, {record.training_data}"
    )


def _said(figures: Evaluation) -> str:
    return f"disc Dice {figures.dice['disc']:.4f}, {figures.discs_found} of {figures.discs} disc areas found"
