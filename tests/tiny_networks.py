"""Networks whose every answer is known: a few ONNX nodes instead of training."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

onnx = pytest.importorskip("onnx", reason="needs the extra packages of training")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def affine_network(path: Path, slopes: Sequence[float], offsets: Sequence[float]) -> Path:
    """logits[c] = slopes[c] * image + offsets[c], any size."""
    _save(path, np.reshape(slopes, (1, -1, 1, 1)), np.reshape(offsets, (1, -1, 1, 1)))
    return path


def constant_network(path: Path, logits: np.ndarray) -> Path:
    """The same ``logits`` (classes, rows, columns) for every image of that size, whatever it shows."""
    _save(path, np.zeros((1, len(logits), 1, 1)), logits[None])
    return path


def register(folder: Path, *paths: Path, name: str = "made", threshold: float = 0.5, **changed: object) -> Path:
    """Write the registry of ``folder`` with one ensemble; returns the folder."""
    members = [{"file": one.name, "sha256": hashlib.sha256(one.read_bytes()).hexdigest()} for one in paths]
    entry = {"version": "1", "architecture": "tiny", "width": 1, "members": members, "threshold": threshold}
    entry |= {"training_data": "none", "licence": "Apache-2.0"} | changed
    (folder / "registry.yaml").write_text(yaml.safe_dump({name: entry}), encoding="utf-8")
    return folder


def _save(path: Path, slopes: np.ndarray, offsets: np.ndarray, output: str = "logits") -> None:
    values = {"slopes": slopes, "offsets": offsets}
    classes = slopes.shape[1]
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["image", "slopes"], ["scaled"]),
            helper.make_node("Add", ["scaled", "offsets"], [output]),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", classes, "h", "w"])],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
