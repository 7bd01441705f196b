"""An open network: normalised slices in, logits out. CUDA where it truly works, else the CPU."""

import contextlib
import ctypes
import hashlib
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime_errors
from scipy.special import softmax

from models.preprocessing import DISC, GRID_MULTIPLE, FloatArray
from models.registry import Member, ModelError, ModelRecord

HalfArray = npt.NDArray[np.float16]

#: Pixels that a GPU works on at once: eight slices of the usual size. A CPU takes slice after slice: its caches like
#: that better, and what it says of a slice does not depend on the others.
_GPU_PIXELS = 8 * 256 * 256

#: What ONNX Runtime raises for a file that it cannot open as a network; they have no base of their own.
_NOT_A_NETWORK = (
    onnxruntime_errors.Fail,
    onnxruntime_errors.InvalidArgument,
    onnxruntime_errors.InvalidGraph,
    onnxruntime_errors.InvalidProtobuf,
    onnxruntime_errors.NotImplemented,
)

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
    """The open sessions of a registered ensemble, one per member. A single network is an ensemble of one."""

    def __init__(self, record: ModelRecord, *, threads: int = 1, device: str = "auto") -> None:
        """Open it. ``device``: "auto" (CUDA if it works), "cpu" or "cuda".

        ``threads``: slices that a CPU works on side by side, each on one thread: the answer does not depend on it.

        Raises:
            ModelError: CUDA was demanded and does not work, or a file is not a network of the expected form.
        """
        self.record = record
        wanted = device == "cuda" or (device == "auto" and cuda_works())
        provider = "CUDAExecutionProvider" if wanted else "CPUExecutionProvider"
        self._sessions = tuple(_open(record, member, provider) for member in record.members)
        self._threads = 1 if self.provider == "CUDAExecutionProvider" else threads
        self._run_options = onnxruntime.RunOptions()
        if self.provider == "CPUExecutionProvider":  # each member leaves its working memory to the next
            self._run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        if device == "cuda" and self.provider != "CUDAExecutionProvider":
            raise ModelError(f"model {record.name!r}: CUDA was asked for but does not work on this machine")

    @property
    def provider(self) -> str:
        """The execution provider that computes, e.g. ``CPUExecutionProvider``."""
        return str(self._sessions[0].get_providers()[0])

    @property
    def n_members(self) -> int:
        """How many networks answer."""
        return len(self._sessions)

    def predict(self, slices: FloatArray) -> FloatArray:
        """Logits, averaged over the members, (n, classes, rows, columns).

        Args:
            slices: normalised, (n, rows, columns), both multiples of 32.

        Raises:
            ValueError: the shape is not that.
        """
        return self._ask(slices, None)

    def predict_members(self, slices: FloatArray) -> tuple[FloatArray, HalfArray]:
        """As :meth:`predict`, and besides each member's own disc probability, (members, n, rows, columns) float16."""
        each = np.empty((self.n_members, *slices.shape), np.float16)
        return self._ask(slices, each), each

    def _ask(self, slices: FloatArray, each: HalfArray | None) -> FloatArray:
        """Mean logits; what every member says of the disc is kept in ``each``, in half precision.

        The members' own logits live for one batch only: those of five networks on a stack of 200 slices would take
        more than a gigabyte.
        """
        if slices.ndim != 3 or slices.shape[1] % GRID_MULTIPLE or slices.shape[2] % GRID_MULTIPLE:
            raise ValueError(f"slices {slices.shape}: (n, rows, columns) with multiples of {GRID_MULTIPLE} expected")
        images = np.ascontiguousarray(slices[:, None], dtype=np.float32)
        mean = np.zeros((len(images), len(self.record.classes), *slices.shape[1:]), np.float32)
        pixels = slices.shape[1] * slices.shape[2]
        step = max(1, _GPU_PIXELS // pixels) if self.provider == "CUDAExecutionProvider" else 1
        batches = [slice(start, start + step) for start in range(0, len(images), step)]

        def ask(member: int, session: onnxruntime.InferenceSession, batch: slice) -> None:
            logits = session.run(["logits"], {"image": images[batch]}, self._run_options)[0]
            mean[batch] += logits  # no two threads have the same batch
            if each is not None:
                each[member, batch] = softmax(logits, axis=1)[:, DISC]

        with ThreadPoolExecutor(self._threads) as pool:
            for member, session in enumerate(self._sessions):
                for done in [pool.submit(ask, member, session, batch) for batch in batches]:
                    done.result()
        mean /= self.n_members
        return mean


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


def _open(record: ModelRecord, member: Member, provider: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Idle threads must not eat the other jobs' time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    options.use_deterministic_compute = True
    providers: list[str | tuple[str, dict[str, str]]] = ["CPUExecutionProvider"]
    if provider != "CPUExecutionProvider":
        providers.insert(0, (provider, _CUDA_OPTIONS))
    try:
        content = member.path.read_bytes()
    except OSError as error:
        raise ModelError(f"model {record.name!r}: {member.path.name} cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != member.sha256:  # what is opened is what was checked
        raise ModelError(f"model {record.name!r}: {member.path.name} has changed since its hash was checked; not used")
    try:
        session = onnxruntime.InferenceSession(content, options, providers=providers)
    except _NOT_A_NETWORK as error:
        raise ModelError(f"model {record.name!r}: {member.path.name} is not a network: {error}") from error
    _check_form(record, member, session)
    return session


def _check_form(record: ModelRecord, member: Member, session: onnxruntime.InferenceSession) -> None:
    """Refuse a network of another form: one input ``image`` and an output ``logits`` with the expected classes."""
    inputs = [one.name for one in session.get_inputs()]
    outputs = {one.name: one.shape for one in session.get_outputs()}
    classes = outputs["logits"][1] if len(outputs.get("logits", ())) == 4 else None
    # A tracing exporter leaves the number of classes open ("logits_dim_1" or the like); the first batch shows it.
    if inputs != ["image"] or classes is None or (isinstance(classes, int) and classes != len(record.classes)):
        found = f"inputs {', '.join(inputs)}, outputs {outputs}"
        expected = f"image -> logits (n, {len(record.classes)}, rows, columns)"
        raise ModelError(f"model {record.name!r}: {member.path.name} has {found}; expected {expected}")
