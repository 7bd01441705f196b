import ast
import json
import logging
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from config.logs import LogSettings
from service.executors import restart_pause_s
from service.logs import JsonFormatter, LineFormatter, log_to_stderr

ROOT = Path(__file__).parent.parent.parent


def test_an_event_is_one_line_whatever_is_in_it() -> None:
    record = logging.makeLogRecord({"msg": "not sent", "levelname": "WARNING", "why": "two\nlines", "n": 3, "none": ""})
    line = LineFormatter("node").format(record)
    assert line.endswith('WARNING node: not sent why="two\\nlines" n=3 none=""')
    assert "\n" not in line


def test_what_a_terminal_would_obey_is_written_out() -> None:
    record = logging.makeLogRecord({"msg": "association rejected", "calling_ae": "\x1b[2J\x9b1A\u202eX", "name_": "Å"})
    line = LineFormatter("node").format(record)
    assert line.endswith('calling_ae="\\u001b[2J\\u009b1A\\u202eX" name_=Å')


def test_a_traceback_stays_on_the_line_and_quotes_nothing() -> None:
    try:
        raise ValueError("Müller^Ann")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "bug", "exc_info": (ValueError, error, error.__traceback__)})
    line = LineFormatter("node").format(record)
    assert "test_a_traceback_stays_on_the_line_and_quotes_nothing" in line
    assert "ValueError" in line
    assert "Müller" not in line
    assert "\n" not in line


def test_what_nobody_catches_reaches_stderr_without_values() -> None:
    code = """
import logging, threading, warnings
from service.logs import log_to_stderr
log_to_stderr("node")
def fail():
    raise ValueError("Canary^Ann")
class Odd:
    def __del__(self):
        fail()
thread = threading.Thread(target=fail)
thread.start()
thread.join()
warnings.warn("Canary^Ann is odd")
Odd()
fail()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 1
    assert "Canary" not in ended.stderr
    assert [line.count("ValueError") > 0 for line in ended.stderr.splitlines()] == [True, False, True, True]
    assert "category=UserWarning" in ended.stderr


def test_as_json_an_event_is_one_object_on_one_line() -> None:
    values = {"msg": "not sent", "levelname": "WARNING", "why": "two\nlines", "n": 3, "level": 7, "path": Path("/x")}
    line = JsonFormatter("node").format(logging.makeLogRecord(values))
    assert "\n" not in line
    found = json.loads(line)
    assert datetime.fromisoformat(found.pop("time")).tzinfo is not None
    assert found == {
        "level": "WARNING",
        "process": "node",
        "event": "not sent",
        "why": "two\nlines",
        "n": 3,
        "level_": 7,
        "path": "/x",
    }


def test_as_json_a_traceback_is_one_text() -> None:
    try:
        raise ValueError("Canary^Ann")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "bug", "exc_info": (ValueError, error, error.__traceback__)})
    line = JsonFormatter("node").format(record)
    assert "ValueError" in json.loads(line)["traceback"]
    assert "Canary" not in line


def test_what_is_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        log_to_stderr("node", LogSettings(level="warning", format="json"))
        logging.getLogger("service.x").info("little")
        logging.getLogger("service.x").warning("much")
    finally:
        root.handlers[:], root.level = before
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "much"


@pytest.mark.parametrize("path", [*sorted((ROOT / "service").glob("*.py")), *sorted((ROOT / "dicom_io").glob("*.py"))])
def test_no_event_uses_a_key_that_logging_keeps_for_itself(path: Path) -> None:
    """``extra={"process": …}`` raises KeyError: once it ended the supervisor when a worker had died."""
    kept = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "extra" and isinstance(node.value, ast.Dict):
            keys = {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
            assert not keys & kept, f"{path.name}:{node.value.lineno}"


def test_a_process_that_keeps_dying_is_replaced_ever_more_slowly() -> None:
    assert restart_pause_s(lived_s=3600, deaths_in_a_row=9) == 0.0
    pauses_s = [restart_pause_s(lived_s=0.5, deaths_in_a_row=n) for n in range(1, 12)]
    assert pauses_s[:4] == [0.0, 1.0, 2.0, 4.0]
    assert pauses_s == sorted(pauses_s)
    assert pauses_s[-1] == 30.0
