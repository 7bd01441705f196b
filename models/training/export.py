"""The network as ONNX: weights stored in half precision, cast back when the session opens, computed in single."""

import os
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from models.training.networks import CFCM

_OPSET = 18
_SMALLEST_HALVED = 16  # values; tiny tensors (normalisation statistics) stay exact


def export(network: CFCM, path: Path) -> None:
    """Write ``network`` to ``path``: input ``image`` (n, 1, h, w), output ``logits`` (n, classes, h, w), any n, h, w.

    The file appears whole or not at all. Half-precision *weights* halve the file at equal speed; half-precision
    *arithmetic* on a CPU would only insert a cast at every layer.
    """
    temporary = path.with_name(f".{path.name}.writing")
    example = torch.zeros(1, 1, 64, 64)
    axes = {0: "n", 2: "h", 3: "w"}
    with warnings.catch_warnings():
        # The exporter by tracing needs no further package; it announces its successor at every call.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval().to(memory_format=torch.contiguous_format),
            (example,),
            str(temporary),
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": axes, "logits": axes},
            opset_version=_OPSET,
            dynamo=False,
        )
    model = halve_weights(onnx.load(temporary))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, temporary)
    os.replace(temporary, path)


def halve_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store every larger float32 constant as float16 with a Cast behind it; the session folds them when it opens."""
    graph = model.graph
    casts = []
    for constant in graph.initializer:
        values = numpy_helper.to_array(constant)
        if values.dtype != np.float32 or values.size < _SMALLEST_HALVED or "running" in constant.name:
            continue
        name = constant.name
        constant.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], f"cast.{name}", to=onnx.TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(casts + nodes)
    return model
