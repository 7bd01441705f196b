import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from striped_site import write_pairs

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from config.settings import load_settings  # noqa: E402
from models.inference import OnnxModel  # noqa: E402
from models.registry import ModelError, load_model  # noqa: E402
from models.training.export import export as original  # noqa: E402
from models.training.folds import read_folds  # noqa: E402
from models.training.recipes import SMOKE  # noqa: E402
from models.training.train import Batches, load_average  # noqa: E402
from service.cli import main  # noqa: E402
from service.training import export as export_module  # noqa: E402
from service.training.export import export_run  # noqa: E402
from service.training.run import Run, open_run, pretrain, start, train_member, train_run  # noqa: E402
from service.training.run_error import RunError  # noqa: E402


def quiet(_: str) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs", "1", "2", "3")


@pytest.fixture(scope="module")
def smoke_run(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 steps through the command: prepared, pretrained, two members, measured."""
    out = tmp_path_factory.mktemp("smoke") / "run"
    assert main(["train", "run", "--smoke", "--data", str(site), "--out", str(out), "--folds", "2"]) == 0
    return out


@pytest.fixture(scope="module")
def exported(smoke_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "made"
    command = ["train", "export", "--run", str(smoke_run), "--out", str(out), "--version", "7", "--threshold", "0.45"]
    assert main(command) == 0
    return out


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_average(path).state_dict() for path in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first)


def test_every_subject_is_measured_by_the_member_that_did_not_see_it(smoke_run: Path) -> None:
    metrics = json.loads((smoke_run / "metrics.json").read_text())
    folds = read_folds(smoke_run / "folds.json")
    assert sorted(name for fold in folds for name in fold) == ["1", "2", "3"]
    assert [tuple(one["held_out"]) for one in metrics["members"]] == list(folds)
    assert [one["training_slices"] for one in metrics["members"]] == [2 * (3 - len(fold)) for fold in folds]
    assert [one["plan"]["seed"] for one in metrics["members"]] == [10, 11]
    assert metrics["out_of_fold"]["slices"] == 6
    assert metrics["out_of_fold"]["discs"] == 30
    assert metrics["data"]["subjects"] == 3


def test_members_without_a_first_stage_start_from_weights_of_their_own(site: Path, tmp_path: Path) -> None:
    still = replace(SMOKE.fold, steps=1, learning_rate=1e-12)
    recipe = replace(SMOKE, pretrain=None, fold=still, phantoms=2, loaders=1)
    run = open_run(recipe, site, tmp_path / "run", settings=load_settings(None), folds=2, say=quiet)
    start(run, resume=False)
    for member in (0, 1):  # here: a process that loads torch takes seconds to start
        train_member(run, member, quiet)
    metrics = train_run(run, only=None, processes=2, say=quiet)
    assert metrics is not None
    assert metrics["recipe"]["pretrain"] is None
    assert not (tmp_path / "run" / "pretrained.pt").exists()
    assert not same_weights(tmp_path / "run" / "fold-1.pt", tmp_path / "run" / "fold-2.pt")


def test_the_export_is_an_ensemble_that_the_node_opens(smoke_run: Path, exported: Path) -> None:
    out = exported
    record = load_model("cfcm-lumbar", out)
    assert (record.version, record.threshold, record.width, len(record.members)) == ("7", 0.45, 4, 2)
    assert "SPIDER" in record.training_data
    assert "CC BY 4.0" in record.licence
    card = (out / "MODEL_CARD.md").read_text()
    for said in ("research use only", "s41597-024-03090-w", "6 annotated slices of 3 exams of 3 subjects", "smoke run"):
        assert said in card
    assert read_folds(out / "folds.json") == read_folds(smoke_run / "folds.json")
    slices = np.random.default_rng(2).normal(size=(1, 64, 64)).astype(np.float32)
    with torch.no_grad():
        logits = [load_average(smoke_run / f"fold-{k}.pt")(torch.from_numpy(slices)[None]).numpy() for k in (1, 2)]
    answer = OnnxModel(record, device="cpu").predict(slices)
    assert np.abs(answer - np.mean(logits, axis=0)).max() < 0.02 * np.abs(logits).max()


def test_a_half_written_export_is_never_picked_up(
    smoke_run: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    def made_before(checkpoint: Path, path: Path) -> None:
        shutil.copyfile(exported / f"cfcm-lumbar-{checkpoint.stem[-1]}.onnx", path)

    def killed_at_the_second(checkpoint: Path, path: Path) -> None:
        if path.name == "m-2.onnx":
            raise KilledError
        made_before(checkpoint, path)

    out = tmp_path / "made"
    monkeypatch.setattr(export_module, "_export_member", made_before)
    export_run(smoke_run, out, name="m", version="1", threshold=0.5, say=quiet)
    before = {one.name: one.read_bytes() for one in out.iterdir()}
    monkeypatch.setattr(export_module, "_export_member", killed_at_the_second)
    for target in (out, tmp_path / "fresh"):
        with pytest.raises(KilledError):
            export_run(smoke_run, target, name="m", version="2", threshold=0.5, say=quiet)
    assert {one.name: one.read_bytes() for one in out.iterdir()} == before
    assert not (tmp_path / "fresh").exists()
    with pytest.raises(ModelError, match=r"registry\.yaml"):
        load_model("m", tmp_path / ".fresh.writing")
    monkeypatch.setattr(export_module, "_export_member", made_before)
    export_run(smoke_run, out, name="m", version="2", threshold=0.5, say=quiet)
    assert load_model("m", out).version == "2"


def test_a_network_that_answers_differently_is_not_exported(
    smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = load_average(smoke_run / "fold-2.pt")
    monkeypatch.setattr(export_module, "export", lambda _, path: original(wrong, path))
    with pytest.raises(RunError, match="answers differently"):
        export_run(smoke_run, tmp_path / "made", name="m", version="1", threshold=0.5, say=quiet)
    assert not (tmp_path / "made").exists()


def test_a_run_that_was_stopped_ends_with_the_same_weights(site: Path, smoke_run: Path, tmp_path: Path) -> None:
    run = open_run(SMOKE, site, tmp_path / "run", settings=load_settings(None), folds=2, say=quiet)
    start(run, resume=False)
    pool = smoke_run / f"phantoms-{SMOKE.phantom_seed}-{SMOKE.phantoms}.npz"
    shutil.copyfile(pool, run.out / pool.name)

    class StoppedError(Exception):
        pass

    draw = Batches.__getitem__

    def stop_at(step: int) -> object:
        def stopping(batches: Batches, index: int) -> object:
            if batches.first + index == step:
                raise StoppedError
            return draw(batches, index)

        return stopping

    for work, step in (
        (lambda: pretrain(run, run.recipe.pretrain, quiet), 6),
        (lambda: train_member(run, 0, quiet), 5),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Batches, "__getitem__", stop_at(step))
            with pytest.raises(StoppedError):
                work()
        work()
    assert same_weights(run.out / "pretrained.pt", smoke_run / "pretrained.pt")
    assert same_weights(run.out / "fold-1.pt", smoke_run / "fold-1.pt")
    assert not same_weights(run.out / "fold-1.pt", smoke_run / "fold-2.pt")


def test_a_run_is_not_written_over_and_not_gone_on_with_as_another(
    site: Path, smoke_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "run", "--smoke", "--data", str(site), "--out", str(smoke_run), "--folds", "2"]
    assert main(command) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*command, "--resume", "--steps", "9"]) == 2
    assert "another recipe" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0  # nothing is left to do
    assert "finished" in capsys.readouterr().out


def test_without_real_data_each_member_has_its_own_simulated_slices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = open_run(SMOKE, None, tmp_path / "run", settings=load_settings(None), folds=2, say=print)
    assert "simulated slices alone" in capsys.readouterr().out
    assert [run.plan(member).seed for member in (0, 1)] == [1, 2]
    start(run, resume=False)
    for member in (0, 1):
        train_member(run, member, quiet)
    pools = sorted(run.out.glob("phantoms-*.npz"))
    assert [one.name for one in pools] == ["phantoms-1-3.npz", "phantoms-2-3.npz"]
    with np.load(pools[0]) as first, np.load(pools[1]) as second:
        assert not any(np.array_equal(one, other) for one in first["images"] for other in second["images"])


def test_a_full_disk_is_seen_before_any_work(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("service.training.run.shutil.disk_usage", lambda _: usage._replace(free=1_000_000))
    assert main(["train", "run", "--smoke", "--data", str(site), "--out", str(tmp_path / "run"), "--folds", "2"]) == 2
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_damaged_prepared_folder_is_refused(
    smoke_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(smoke_run / "prepared", tmp_path / "prepared")
    exam = next((tmp_path / "prepared" / "exams").glob("*.npz"))
    exam.write_bytes(exam.read_bytes()[:-1] + b"x")
    out = tmp_path / "run"
    shutil.copytree(smoke_run, out, ignore=lambda *_: ["prepared", "fold-2.json", "fold-2.pt", "metrics.json"])
    command = ["train", "run", "--smoke", "--data", str(tmp_path / "prepared"), "--out", str(out), "--resume"]
    assert main(command) == 1
    assert "member 2 ended early" in capsys.readouterr().err
    assert not (out / "metrics.json").exists()


def test_an_unfinished_run_is_not_exported(smoke_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(smoke_run, tmp_path / "run", ignore=lambda *_: ["metrics.json"])
    assert main(["train", "export", "--run", str(tmp_path / "run")]) == 2
    assert "no finished run" in capsys.readouterr().err
    assert not (tmp_path / "run" / "export").exists()


@pytest.mark.parametrize("arguments", [["run"], ["export", "--run", "nowhere"]])
def test_without_torch_there_is_a_clear_error_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    assert main(["train", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "training needs torch: pip install 'discnode[train]'\n"
    assert not (tmp_path / "out").exists()


def test_the_registry_of_an_export_names_every_file(exported: Path, tmp_path: Path) -> None:
    entry = yaml.safe_load((exported / "registry.yaml").read_text())["cfcm-lumbar"]
    assert [one["file"] for one in entry["members"]] == ["cfcm-lumbar-1.onnx", "cfcm-lumbar-2.onnx"]
    damaged = tmp_path / "damaged"
    shutil.copytree(exported, damaged)
    weights = damaged / "cfcm-lumbar-2.onnx"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelError, match="SHA-256"):
        load_model("cfcm-lumbar", damaged)


def test_run_keeps_what_identifies_it(smoke_run: Path) -> None:
    held = json.loads((smoke_run / "run.json").read_text())
    assert held["format"] == "discnode.run/1"
    assert len(held["data_digest"]) == 64
    assert isinstance(Run(SMOKE, smoke_run, None, None, ((), ())).record()["recipe"], dict)
