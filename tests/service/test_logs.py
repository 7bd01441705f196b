import ast
import json
import logging
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


def test_a_traceback_stays_on_the_line() -> None:
    try:
        raise ValueError("x")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "bug", "exc_info": (ValueError, error, error.__traceback__)})
    line = LineFormatter("node").format(record)
    assert "ValueError: x" in line
    assert "\n" not in line


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
        raise ValueError("x")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "bug", "exc_info": (ValueError, error, error.__traceback__)})
    assert "ValueError: x" in json.loads(JsonFormatter("node").format(record))["traceback"]


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
