from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from striped_site import write_site
from tiny_networks import affine_network, register

pytest.importorskip("nibabel")

from config.settings import load_settings
from models.inference import OnnxModel
from models.preprocessing import CLASS_NAMES
from models.registry import ModelError, load_model
from models.training.dataset import read_manifest
from models.training.evaluate import THRESHOLDS, Evaluation
from models.training.folds import read_folds, write_folds
from service.cli import main
from service.training import promote as promote_module
from service.training.prepare import prepare
from service.training.promote import Comparison, Contender, promote

#: Very bright is disc, as in the striped site; or nothing is.
SEEING, BLIND = ([0.0, 9.0, 0.0, 0.0, 0.0], [16.0, 0.0, 0.0, 0.0, 0.0]), ([0.0] * 5, [9.0, 0.0, 0.0, 0.0, 0.0])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    prepare(
        write_site(folder / "site", "A_1", "A_2", "B"),
        folder / "prepared",
        settings=load_settings(None),
        folds=2,
        say=lambda _: None,
    )
    return folder / "prepared"


def model(folder: Path, *members: tuple[list[float], list[float]], version: str = "1") -> Path:
    folder.mkdir()
    # A network is told from another by its bytes: an offset that changes nothing keeps the members apart.
    paths = [
        affine_network(folder / f"n-{index}.onnx", slopes, [one + 0.001 * index for one in offsets])
        for index, (slopes, offsets) in enumerate(members)
    ]
    return register(folder, *paths, version=version)


def run(candidate: Path, weights: Path, *more: str) -> int:
    command = ["train", "promote", "--candidate", str(candidate), "--weights-dir", str(weights), "--name", "made"]
    return main([*command, "--phantoms", "1", *more])


def test_a_better_candidate_is_installed_and_the_previous_one_can_return(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = model(tmp_path / "weights", BLIND)
    old = load_model("made", weights)
    candidate = model(tmp_path / "candidate", SEEING, SEEING, version="2")
    assert run(candidate, weights, "--data", str(prepared)) == 0
    said = capsys.readouterr().out
    assert "candidate, 6 slices of 2 subjects: disc Dice 0.9" in said
    assert "installed, 6 slices of 2 subjects: disc Dice 0.0000" in said
    new = load_model("made", weights)
    assert new.version == "2"
    assert new.sha256 == load_model("made", candidate).sha256
    assert OnnxModel(new, device="cpu").predict(np.ones((1, 64, 64), np.float32))[0, 1].mean() == pytest.approx(
        9.0, abs=0.01
    )
    back = ["train", "promote", "--back", "--weights-dir", str(weights)]
    assert main(back) == 0
    assert load_model("made", weights) == old
    assert main(back) == 0  # and forth
    assert load_model("made", weights) == new


def test_a_worse_candidate_is_refused_and_nothing_changes(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = model(tmp_path / "weights", SEEING)
    before = {one.name: one.read_bytes() for one in weights.iterdir()}
    assert run(model(tmp_path / "candidate", BLIND, version="2"), weights, "--data", str(prepared)) == 3
    assert (
        "not installed: on held-out subjects its disc Dice is not better: 0.0000 against 0.9" in capsys.readouterr().out
    )
    assert {one.name: one.read_bytes() for one in weights.iterdir()} == before


def test_only_the_member_that_has_not_seen_a_subject_answers(prepared: Path, tmp_path: Path) -> None:
    candidate = model(tmp_path / "candidate", SEEING, BLIND, version="2")
    digests = read_manifest(prepared).images_sha256
    weights = model(tmp_path / "weights", BLIND)
    outcomes = []
    for folds in ((("A",), ("B",)), (("B",), ("A",))):
        write_folds(candidate / "folds.json", folds, 1, images_sha256=digests)
        said: list[str] = []
        promote(candidate, weights, name="made", data=prepared, phantoms=1, say=said.append)
        outcomes.append(next(line for line in said if line.startswith("candidate, 6 slices")))
        assert "3 of 3 exams by the one member" in outcomes[-1]
        (tmp_path / "weights" / "registry.yaml").write_text(
            (tmp_path / "weights" / "registry.previous.yaml").read_text()
        )
    # Fold 0 is the seeing member's: of A's 20 disc areas it finds all, of B's 10 likewise, and the blind one none.
    assert "20 of 30 disc areas" in outcomes[0]
    assert "10 of 30 disc areas" in outcomes[1]


def test_a_name_in_the_folds_counts_only_for_the_same_images(prepared: Path, tmp_path: Path) -> None:
    candidate = model(tmp_path / "candidate", SEEING, BLIND)
    exam = read_manifest(prepared).exams[0]
    contender = Contender(load_model("made", candidate), candidate)
    assert contender.fold_of(exam) is None
    write_folds(candidate / "folds.json", (("B",), ("A",)), 1, images_sha256={"A": ["0" * 64], "B": ["1" * 64]})
    assert contender.fold_of(exam) is None  # another A
    write_folds(
        candidate / "folds.json", (("B",), ("Z",)), 1, images_sha256={"Z": [exam.images_sha256], "B": ["1" * 64]}
    )
    assert contender.fold_of(exam) == 1  # the same person under another name


def test_an_interrupted_installation_leaves_the_old_model_in_use(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = model(tmp_path / "weights", BLIND)
    old = load_model("made", weights)
    candidate = model(tmp_path / "candidate", SEEING, SEEING, version="2")

    class KilledError(BaseException):
        pass

    write = promote_module.write_text

    def killed(path: Path, text: str) -> None:
        if path.name == "registry.yaml":
            raise KilledError
        write(path, text)

    monkeypatch.setattr(promote_module, "write_text", killed)
    with pytest.raises(KilledError):
        promote(candidate, weights, name="made", data=prepared, phantoms=1, say=lambda _: None)
    assert load_model("made", weights) == old
    monkeypatch.undo()
    assert promote(candidate, weights, name="made", data=prepared, phantoms=1, say=lambda _: None)
    assert load_model("made", weights).version == "2"


def test_other_models_of_the_folder_and_the_folds_of_each_stay(prepared: Path, tmp_path: Path) -> None:
    weights = model(tmp_path / "weights", BLIND)
    entries = yaml.safe_load((weights / "registry.yaml").read_text())
    (weights / "registry.yaml").write_text(yaml.safe_dump(entries | {"other": entries["made"]}))
    candidate = model(tmp_path / "candidate", SEEING, SEEING, version="2")
    write_folds(candidate / "folds.json", (("A",), ("B",)), 1)
    assert promote(candidate, weights, name="made", data=prepared, phantoms=1, say=lambda _: None)
    record = load_model("made", weights)
    assert load_model("other", weights).version == "1"
    assert read_folds(weights / f"made-{record.sha256[:8]}.folds.json") == (("A",), ("B",))
    assert Contender(record, weights).folds == weights / f"made-{record.sha256[:8]}.folds.json"


def test_what_cannot_be_compared_is_told(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = model(tmp_path / "weights", SEEING)
    assert run(weights, weights) == 2
    assert "installed already" in capsys.readouterr().err
    candidate = model(tmp_path / "candidate", SEEING, BLIND, version="2")
    write_folds(candidate / "folds.json", (("A",), ("B",), ("C",)), 1)
    assert run(candidate, weights) == 2
    assert "3 folds, the model 2 members" in capsys.readouterr().err
    assert run(candidate, weights, "--data", str(tmp_path)) == 2
    (candidate / "n-0.onnx").write_bytes(b"half")
    assert run(candidate, weights) == 2
    assert "SHA-256" in capsys.readouterr().err
    assert main(["train", "promote", "--back", "--weights-dir", str(weights)]) == 2
    assert "nothing to go back to" in capsys.readouterr().err


def test_simulated_slices_guard_against_forgetting() -> None:
    def figures(disc: float) -> Evaluation:
        dice = dict.fromkeys(CLASS_NAMES, disc)
        return Evaluation(dice, 10, 10, 5, {f"{one:.2f}": disc for one in THRESHOLDS})

    better = Comparison(figures(0.93), figures(0.92), figures(0.94), figures(0.955))
    assert better.is_better
    forgetful = replace(better, candidate_frozen=figures(0.93))
    assert forgetful.objections == ("on simulated slices its disc Dice falls by more than 0.02: 0.9300 from 0.9550",)
    equal = replace(better, candidate_real=figures(0.92))
    assert not equal.is_better
    undefined = replace(better, candidate_real=figures(float("nan")))
    assert not undefined.is_better
    without_real = replace(better, candidate_real=None, installed_real=None)
    assert not without_real.is_better  # there the simulated slices decide, and 0.94 is less than 0.955


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(ModelError, match=r"registry\.yaml"):
        promote(tmp_path / "none", tmp_path / "weights", name="made", data=None, say=lambda _: None)
