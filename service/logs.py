"""The node's log: one line per event on stderr, ``key=value`` pairs or JSON; UIDs, but never a patient's identity."""

import json
import logging
import sys
import threading
import warnings
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TextIO

from config.logs import LogSettings
from service.failure_text import describe_failure

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """``time LEVEL process: event key=value …`` on one line, a traceback included: frames and types, no values."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """One line; values with spaces or quotes are quoted as JSON strings."""
        pairs = [f"{key}={_quoted(value)}" for key, value in vars(record).items() if key not in _STANDARD]
        if record.exc_info and record.exc_info[1] is not None:
            pairs.append(f"traceback={_quoted(describe_failure(record.exc_info[1]))}")
        message = record.getMessage().replace("\n", " ")
        return " ".join((_time_of(record), record.levelname, f"{self._process}:", message, *pairs))


class JsonFormatter(logging.Formatter):
    """One JSON object on one line: time, level, process, event, and what belongs to the event."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """One line. A value that JSON does not know is written as text."""
        content: dict[str, object] = {
            "time": _time_of(record),
            "level": record.levelname,
            "process": self._process,
            "event": record.getMessage(),
        }
        for key, value in vars(record).items():
            if key not in _STANDARD:
                content[f"{key}_" if key in content else key] = value
        if record.exc_info and record.exc_info[1] is not None:
            content["traceback"] = describe_failure(record.exc_info[1])
        return json.dumps(content, ensure_ascii=False, default=str)


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _quoted(value: object) -> str:
    text = str(value)
    is_plain = text.isprintable()  # a calling AE title may hold what a terminal obeys
    return text if text and is_plain and not set(text) & set(' "=\\') else json.dumps(text, ensure_ascii=not is_plain)


def log_to_stderr(process: str, settings: LogSettings = LogSettings()) -> None:  # noqa: B008 - frozen
    """Configure logging of this process. Chatter of libraries, and warnings that may quote data, stay out."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process) if settings.format == "json" else LineFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    for name in ("apscheduler", "uvicorn", "sqlalchemy", "matplotlib", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)  # a skipped sweep is no event
    # These two may quote header values, and a header holds names.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="pydicom")
    warnings.filterwarnings("ignore", module="pynetdicom")
    # What Python itself writes to stderr quotes values too: of an exception that nobody caught, and in warnings.
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda told: _log_uncaught(told.exc_type, told.exc_value, told.exc_traceback)
    sys.unraisablehook = lambda told: _log_uncaught(told.exc_type, told.exc_value, told.exc_traceback)
    warnings.showwarning = _log_warning


def _log_uncaught(kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    told = None if error is None else (kind, error, where)
    logging.getLogger(__name__).error("not caught", extra={"error": kind.__name__}, exc_info=told)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Where and of what kind; its text may quote a header."""
    place = f"{Path(filename).name}:{lineno}"
    logging.getLogger(__name__).warning("python warning", extra={"category": category.__name__, "place": place})
