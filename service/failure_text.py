"""What is kept of a failure: where and of what type; no values, which may be of a patient."""

import signal
import traceback

from processing.refusal import UnsuitableInput

#: Whose exceptions carry messages of ours, which quote no header.
_OUR_PACKAGES = ("config", "models", "processing", "dicom_io", "service")


def describe_failure(error: BaseException) -> str:
    """The traceback as module, line and function of each frame, and each exception's type, innermost cause first.

    Neither source lines nor values. The message is kept only of exceptions that our packages define.
    """
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        parts.append(_describe_one(current))
        if current.__cause__ is not None:
            current = current.__cause__
        else:
            current = None if current.__suppress_context__ else current.__context__
    return "\nwhich led to\n".join(reversed(parts))


def _describe_one(error: BaseException) -> str:
    lines = [
        f"  {frame.f_globals.get('__name__', '?')}, line {number}, in {frame.f_code.co_name}"
        for frame, number in traceback.walk_tb(error.__traceback__)
    ]
    kind = type(error)
    is_ours = kind.__module__.partition(".")[0] in _OUR_PACKAGES
    message = str(error) if is_ours else ""
    if isinstance(error, UnsuitableInput):
        message = f"{error.reason.code}: {error.reason.detail}"
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return "\n".join((*lines, f"{name}: {message}" if message else name))


def describe_exit(status: int) -> str:
    """How a process ended, by its exit status (negative: the signal that killed it)."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    why = {"SIGSEGV": "a crash in native code", "SIGABRT": "native code gave up", "SIGBUS": "a crash in native code"}
    why |= {"SIGKILL": "from outside, perhaps for want of memory", "SIGILL": "a crash in native code"}
    why |= {"SIGFPE": "a crash in native code"}
    return f"was killed by {name}" + (f" ({why[name]})" if name in why else "")
