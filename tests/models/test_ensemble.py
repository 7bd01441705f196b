"""Ensembles of networks whose answers are known."""

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tiny_networks
from tiny_networks import affine_network, constant_network, register

from models.inference import OnnxModel
from models.registry import ModelError, ModelRecord, load_model, trial_record

SLOPES = ((0, 1, 0.5, -1, 0), (0, -2, 1, 0, 0.25), (1, 4, 0, 0, 0))
OFFSETS = ((0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (0, 0, 0, -6, 0))


def three(folder: Path) -> ModelRecord:
    paths = [affine_network(folder / f"tiny-{k}.onnx", SLOPES[k], OFFSETS[k]) for k in range(3)]
    return load_model("made", register(folder, *paths))


def own_logits(images: np.ndarray) -> np.ndarray:
    """(members, n, classes, rows, columns)"""
    slopes, offsets = (np.array(one, float)[:, None, :, None, None] for one in (SLOPES, OFFSETS))
    return slopes * images[None, :, None] + offsets


def test_logits_are_averaged_and_every_member_keeps_its_own_probability(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(3, 32, 64)).astype(np.float32)
    model = OnnxModel(three(tmp_path), device="cpu")
    mean, each = model.predict_members(images)
    expected = own_logits(images)
    np.testing.assert_allclose(mean, expected.mean(axis=0), atol=1e-6)
    power = np.exp(expected)
    assert each.dtype == np.float16
    np.testing.assert_allclose(each, power[:, :, 1] / power.sum(axis=2), atol=3e-4)  # half precision
    np.testing.assert_array_equal(model.predict(images), mean)
    assert model.n_members == 3


def test_the_same_slices_give_the_same_bits_whatever_stands_beside_them(tmp_path: Path) -> None:
    images = np.random.default_rng(1).normal(size=(5, 32, 32)).astype(np.float32)
    record = three(tmp_path)
    mean, each = OnnxModel(record, device="cpu").predict_members(images)
    again, each_again = OnnxModel(record, device="cpu").predict_members(images[2:3])
    np.testing.assert_array_equal(again, mean[2:3])
    np.testing.assert_array_equal(each_again, each[:, 2:3])


def test_the_number_of_threads_does_not_change_a_bit() -> None:
    images = np.random.default_rng(3).normal(size=(5, 64, 64)).astype(np.float32)
    record = load_model("cfcm-lumbar").only(0)
    mean, each = OnnxModel(record, device="cpu", threads=1).predict_members(images)
    again, each_again = OnnxModel(record, device="cpu", threads=3).predict_members(images)
    np.testing.assert_array_equal(again, mean)
    np.testing.assert_array_equal(each_again, each)


def test_a_single_network_is_an_ensemble_of_one(tmp_path: Path) -> None:
    record = three(tmp_path)
    images = np.ones((1, 32, 32), np.float32)
    for index in range(3):
        alone = OnnxModel(record.only(index), device="cpu")
        mean, each = alone.predict_members(images)
        np.testing.assert_allclose(mean, own_logits(images)[index], atol=1e-6)
        assert (alone.n_members, len(each)) == (1, 1)
        assert alone.record.sha256 == record.members[index].sha256


def test_the_digest_stands_for_all_members_in_their_order(tmp_path: Path) -> None:
    record = three(tmp_path)
    lines = "".join(f"{hashlib.sha256(one.path.read_bytes()).hexdigest()}\n" for one in record.members)
    assert record.sha256 == hashlib.sha256(lines.encode()).hexdigest()
    assert len({record.sha256, *(one.sha256 for one in record.members)}) == 4
    turned = load_model("made", register(tmp_path, *(one.path for one in reversed(record.members))))
    assert turned.sha256 != record.sha256


@pytest.mark.parametrize("index", [0, 1, 2])
def test_one_changed_byte_in_one_member_is_refused(tmp_path: Path, index: int) -> None:
    path = three(tmp_path).members[index].path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"tiny-{index}\.onnx has SHA-256"):
        load_model("made", tmp_path)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"members": []}, "members: .*at least 1"),
        ({"members": None}, "members: "),
        ({"members": [{"file": "../x.onnx", "sha256": "0" * 64}]}, r"members\.0\.file"),
        ({"members": [{"file": "x.onnx", "sha256": "00"}]}, r"members\.0\.sha256"),
        ({"members": [{"file": "x.onnx", "sha256": "0" * 64}] * 2}, "listed twice"),
        ({"threshold": 1.5}, "threshold: .*less than 1"),
        ({"file": "x.onnx"}, "file: Extra"),
    ],
)
def test_an_entry_that_is_not_in_order_is_refused_with_its_fault(
    tmp_path: Path, changed: dict[str, object], fault: str
) -> None:
    register(tmp_path, **changed)
    with pytest.raises(ModelError, match=rf"'made': .*registry\.yaml is not in order: .*{fault}"):
        load_model("made", tmp_path)


def test_the_calibrated_threshold_and_spacing_stand_in_the_record(tmp_path: Path) -> None:
    path = affine_network(tmp_path / "one.onnx", SLOPES[0], OFFSETS[0])
    record = load_model("made", register(tmp_path, path, threshold=0.37, spacing_mm=1.0, version=3))
    assert (record.threshold, record.spacing_mm, record.version) == (0.37, 1.0, "3")


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    for content in (b"not a network", b""):
        path = tmp_path / "text.onnx"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"text\.onnx is not a network"):
            OnnxModel(trial_record((path,)), device="cpu")


def test_a_network_with_other_classes_or_names_is_refused(tmp_path: Path) -> None:
    path = affine_network(tmp_path / "three.onnx", SLOPES[0][:3], OFFSETS[0][:3])
    with pytest.raises(ModelError, match=r"expected image -> logits \(n, 5, rows, columns\)"):
        OnnxModel(trial_record((path,)), device="cpu")
    tiny_networks._save(path, np.zeros((1, 5, 1, 1)), np.zeros((1, 5, 1, 1)), output="scores")
    with pytest.raises(ModelError, match="scores"):
        OnnxModel(trial_record((path,)), device="cpu")


def test_an_ensemble_without_members_is_refused() -> None:
    with pytest.raises(ModelError, match="no member"):
        trial_record(())


@pytest.mark.parametrize("shape", [(1, 48, 64), (1, 64, 33), (64, 64)])
def test_a_wrong_grid_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    model = OnnxModel(three(tmp_path), device="cpu")
    with pytest.raises(ValueError, match="multiples of 32"):
        model.predict_members(np.zeros(shape, np.float32))


def test_a_constant_network_says_what_it_was_told(tmp_path: Path) -> None:
    logits = np.random.default_rng(2).normal(size=(5, 32, 32)).astype(np.float32)
    model = OnnxModel(trial_record((constant_network(tmp_path / "told.onnx", logits),)), device="cpu")
    np.testing.assert_array_equal(model.predict(np.ones((2, 32, 32), np.float32)), np.stack([logits] * 2))


def test_a_long_stack_is_held_once_whatever_the_number_of_members(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    paths = [constant_network(tmp_path / f"long-{k}.onnx", rng.normal(size=(5, 64, 64))) for k in range(5)]
    model = OnnxModel(load_model("made", register(tmp_path, *paths)), device="cpu")
    slices = np.zeros((120, 64, 64), np.float32)
    tracemalloc.start()
    try:
        mean, each = model.predict_members(slices)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * (mean.nbytes + each.nbytes)  # with the members' own logits it would be six times the mean
