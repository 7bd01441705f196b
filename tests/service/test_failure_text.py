"""What is kept of a failure names the place and no person."""

import signal

from processing.refusal import ReasonCode, UnsuitableInput
from service.failure_text import describe_exit, describe_failure

CANARY = "Canary^Ann"


def fail_within(name: str) -> None:
    try:
        int(name)
    except ValueError as error:
        raise KeyError(name) from error


def failure(work: object, *arguments: object) -> str:
    try:
        work(*arguments)  # type: ignore[operator]
    except (KeyError, UnsuitableInput) as error:
        return describe_failure(error)
    raise AssertionError("it did not fail")


def refuse() -> None:
    raise UnsuitableInput(ReasonCode.MOTION, "4 mm")


def test_frames_and_types_are_kept_and_values_are_not() -> None:
    text = failure(fail_within, CANARY)
    assert CANARY not in text
    assert "Canary" not in text
    lines = text.splitlines()
    assert lines[1:4] == ["ValueError", "which led to", lines[3]]
    assert lines[0].startswith("  test_failure_text, line ")
    assert lines[0].endswith("in fail_within")
    assert lines[-1] == "KeyError"


def test_a_message_of_ours_is_kept() -> None:
    assert failure(refuse).splitlines()[-1] == "processing.refusal.UnsuitableInput: MOTION: 4 mm"


def test_an_end_is_named_by_its_signal() -> None:
    assert describe_exit(-signal.SIGSEGV) == "was killed by SIGSEGV (a crash in native code)"
    assert describe_exit(-signal.SIGKILL) == "was killed by SIGKILL (from outside, perhaps for want of memory)"
    assert describe_exit(-signal.SIGTERM) == "was killed by SIGTERM"
    assert describe_exit(3) == "ended with exit status 3"
