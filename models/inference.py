"""An open network: normalised slices in, logits out. CUDA where it truly works, else the CPU."""

import contextlib
import ctypes
import io
from pathlib import Path

import numpy as np
import onnxruntime

from models.preprocessing import GRID_MULTIPLE, FloatArray
from models.registry import ModelError, ModelRecord

_BATCH = 4  # slices at once; bounds the memory to about 0.5 GB

#: What ONNX Runtime's CUDA provider loads, by the CUDA release it was built for. If one is missing, asking for CUDA
#: prints errors and falls back; looking first keeps that quiet.
_CUDA_LIBRARIES = (
    "libcudart.so.{cuda}",
    "libcublas.so.{cuda}",
    "libcublasLt.so.{cuda}",
    "libcurand.so.10",
    "libcudnn.so.9",
)

#: By default cuDNN races its algorithms and takes the fastest, so that runs differ, with 10 bits of mantissa (TF32).
_CUDA_OPTIONS = {"cudnn_conv_algo_search": "DEFAULT", "use_tf32": "0"}


class OnnxModel:
    """One open session of a registered network."""

    def __init__(self, record: ModelRecord, *, threads: int = 1, device: str = "auto") -> None:
        """Open it. ``device``: "auto" (CUDA if it works), "cpu" or "cuda".

        Raises:
            ModelError: CUDA was demanded and does not work.
        """
        self.record = record
        wanted = device == "cuda" or (device == "auto" and cuda_works())
        self._session = _open(record.path, threads, "CUDAExecutionProvider" if wanted else "CPUExecutionProvider")
        if device == "cuda" and self.provider != "CUDAExecutionProvider":
            raise ModelError(f"model {record.name!r}: CUDA was asked for but does not work on this machine")

    @property
    def provider(self) -> str:
        """The execution provider that computes, e.g. ``CPUExecutionProvider``."""
        return str(self._session.get_providers()[0])

    def predict(self, slices: FloatArray) -> FloatArray:
        """Logits (n, classes, rows, columns) of normalised ``slices`` (n, rows, columns), both multiples of 16.

        Raises:
            ValueError: the shape is not that.
        """
        if slices.ndim != 3 or slices.shape[1] % GRID_MULTIPLE or slices.shape[2] % GRID_MULTIPLE:
            raise ValueError(f"slices {slices.shape}: (n, rows, columns) with multiples of {GRID_MULTIPLE} expected")
        images = np.ascontiguousarray(slices[:, None], dtype=np.float32)
        logits = np.empty((len(images), len(self.record.classes), *slices.shape[1:]), np.float32)
        for start in range(0, len(images), _BATCH):
            batch = slice(start, start + _BATCH)
            logits[batch] = self._session.run(["logits"], {"image": images[batch]})[0]
        return logits


def cuda_works() -> bool:
    """Whether the CUDA provider is built in, its libraries are there and the driver counts at least one device."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return False
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value < 1:
        return False
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
        onnxruntime.preload_dlls()  # finds CUDA and cuDNN in NVIDIA's wheels, beside those of the system
    release = str(getattr(onnxruntime, "cuda_version", "") or "12").split(".")[0]
    try:
        for library in _CUDA_LIBRARIES:
            ctypes.CDLL(library.format(cuda=release))
    except OSError:
        return False
    return True


def _open(path: Path, threads: int, provider: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # idle threads must not eat the other jobs' time
    options.log_severity_level = 3
    options.use_deterministic_compute = True
    providers: list[str | tuple[str, dict[str, str]]] = ["CPUExecutionProvider"]
    if provider != "CPUExecutionProvider":
        providers.insert(0, (provider, _CUDA_OPTIONS))
    return onnxruntime.InferenceSession(str(path), options, providers=providers)
