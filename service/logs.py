"""The node's log: one line per event on stderr, ``key=value`` pairs; UIDs, but never a patient's identity."""

import json
import logging
import sys
import warnings
from datetime import UTC, datetime

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """``time LEVEL process: event key=value …`` on one line, a traceback included."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """One line; values with spaces or quotes are quoted as JSON strings."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        pairs = [f"{key}={_quoted(value)}" for key, value in vars(record).items() if key not in _STANDARD]
        if record.exc_info:
            pairs.append(f"traceback={_quoted(self.formatException(record.exc_info))}")
        message = record.getMessage().replace("\n", " ")
        return " ".join((when, record.levelname, f"{self._process}:", message, *pairs))


def _quoted(value: object) -> str:
    text = str(value)
    return text if text and not set(text) & set(' "=\n\r\t\\') else json.dumps(text, ensure_ascii=False)


def log_to_stderr(process: str) -> None:
    """Configure logging of this process. Chatter of libraries, and warnings that may quote data, stay out."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in ("apscheduler", "uvicorn", "sqlalchemy", "matplotlib", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)  # a skipped sweep is no event
    # These two may quote header values, and a header holds names.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="pydicom")
    warnings.filterwarnings("ignore", module="pynetdicom")
