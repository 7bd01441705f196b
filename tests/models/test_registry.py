import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from models.inference import OnnxModel, cuda_works
from models.preprocessing import normalise_slice, pad_to_grid
from models.registry import PACKAGED_FOLDER, ModelError, load_model, names


def copy_of_weights(folder: Path) -> Path:
    for path in PACKAGED_FOLDER.iterdir():
        shutil.copy(path, folder / path.name)
    return folder


def test_the_default_networks_are_registered_with_their_hashes() -> None:
    record = load_model("cfcm-lumbar")
    assert 1 <= len(record.members) <= 5
    for member in record.members:
        assert member.sha256 == hashlib.sha256(member.path.read_bytes()).hexdigest()
    assert sum(member.path.stat().st_size for member in record.members) <= 32_000_000
    assert 0 < record.threshold < 1
    assert "cfcm-lumbar" in names()


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    folder = copy_of_weights(tmp_path)
    path = load_model("cfcm-lumbar", folder).members[-1].path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"SHA-256 .* registered is .* not used"):
        load_model("cfcm-lumbar", folder)
    path.write_bytes(content[: len(content) // 3])  # half-written
    with pytest.raises(ModelError, match=r"SHA-256 .* registered is .* not used"):
        load_model("cfcm-lumbar", folder)
    path.unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        load_model("cfcm-lumbar", folder)


def test_a_file_that_changes_after_its_check_is_not_opened(tmp_path: Path) -> None:
    record = load_model("cfcm-lumbar", copy_of_weights(tmp_path))
    path = record.members[0].path
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match="has changed since"):
        OnnxModel(record, device="cpu")
    path.unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        OnnxModel(record, device="cpu")


def test_an_unknown_name_is_refused_and_the_known_ones_named() -> None:
    with pytest.raises(ModelError, match=r"'unet' is not registered; available: .*cfcm-lumbar"):
        load_model("unet")


def test_a_folder_without_networks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"registry\.yaml: cannot be read: No such file"):
        load_model("cfcm-lumbar", tmp_path)
    registry = tmp_path / "registry.yaml"
    for content, fault in (("- a list", "must hold"), ("a: [", "is not YAML"), ("", "available: none")):
        registry.write_text(content)
        with pytest.raises(ModelError, match=fault):
            load_model("cfcm-lumbar", tmp_path)


def test_prediction_does_not_depend_on_the_batch_and_repeats_exactly() -> None:
    model = OnnxModel(load_model("cfcm-lumbar"), device="cpu")
    slices = np.random.default_rng(0).normal(size=(6, 64, 96)).astype(np.float32)
    together = model.predict(slices)
    assert together.shape == (6, 5, 64, 96)
    assert np.array_equal(together, model.predict(slices))
    assert np.allclose(together[4:5], model.predict(slices[4:5]), atol=1e-4)
    assert model.provider == "CPUExecutionProvider"


def test_a_size_the_network_cannot_halve_is_refused() -> None:
    model = OnnxModel(load_model("cfcm-lumbar"), device="cpu")
    with pytest.raises(ValueError, match="multiples of 32"):
        model.predict(np.zeros((1, 100, 96), np.float32))


def test_opening_prints_nothing_where_there_is_no_cuda(capfd: pytest.CaptureFixture[str]) -> None:
    model = OnnxModel(load_model("cfcm-lumbar"))
    assert model.provider == ("CUDAExecutionProvider" if cuda_works() else "CPUExecutionProvider")
    assert capfd.readouterr() == ("", "")
    if not cuda_works():
        with pytest.raises(ModelError, match="CUDA was asked for"):
            OnnxModel(load_model("cfcm-lumbar"), device="cuda")


def test_normalised_slices_ignore_the_scale_of_the_image() -> None:
    image = np.random.default_rng(1).gamma(2.0, 100.0, (128, 96)).astype(np.float32)
    normalised = normalise_slice(image)
    assert normalised.mean() == pytest.approx(0, abs=1e-4)
    assert normalised.std() == pytest.approx(1, abs=1e-3)
    assert np.allclose(normalised, normalise_slice(3.7 * image + 12), atol=0.02)
    assert not normalise_slice(np.full((64, 64), 5.0)).any()
    assert not normalise_slice(np.full((64, 64), np.nan)).any()


def test_padding_keeps_the_picture_and_its_place() -> None:
    slices = np.random.default_rng(2).normal(size=(2, 300, 200)).astype(np.float32)
    padded, (row, column) = pad_to_grid(slices)
    assert padded.shape == (2, 320, 256)
    assert np.array_equal(padded[:, row : row + 300, column : column + 200], slices)
    assert padded.min() == slices.min()


def test_cuda_is_asked_for_reproducible_full_precision_and_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    class Session:
        def __init__(self, content: bytes, options: object, providers: list[object]) -> None:
            asked.append(providers)

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider"]

        def get_inputs(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(name="image")]

        def get_outputs(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(name="logits", shape=["n", 5, "h", "w"])]

    monkeypatch.setattr("models.inference.onnxruntime.InferenceSession", Session)
    OnnxModel(load_model("cfcm-lumbar"), device="cuda")
    options = {"cudnn_conv_algo_search": "DEFAULT", "use_tf32": "0"}
    assert asked == [[("CUDAExecutionProvider", options), "CPUExecutionProvider"]] * 5


def test_no_slice_gives_no_logits() -> None:
    model = OnnxModel(load_model("cfcm-lumbar"), device="cpu")
    assert model.predict(np.zeros((0, 64, 96), np.float32)).shape == (0, 5, 64, 96)
