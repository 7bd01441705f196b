"""The files of the audit trail: one line an event, each with the hash of the line before it, only ever appended to.

A folder holds ``audit-YYYY-MM.jsonl``, a new one each month, and ``head.json`` with the number and the hash of the last
line, so that a trail whose end was cut off is seen to be short. A line also says how far the sources of the trail have
been read, so that what is in the trail and what has been read cannot disagree, whenever the power fails.
"""

import hashlib
import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.audit_files import append_bytes, last_line, locked, replace_file, trail_files

_log = logging.getLogger(__name__)

FIRST = "0" * 64  # what the first line has in place of the hash of the line before it
_NUMBER = re.compile(rb'\{"n":(\d+),')


class ChainBroken(Exception):
    """A line is not what was written, or is missing; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far the sources have been read.

    ``read``: source -> the last row in the trail. Where a source's rows were being written when the node died:
    ``unfinished`` names it, ``upto`` the last row of that lot, ``written`` how many of its lines are in the trail.
    """

    read: Mapping[str, int] = field(default_factory=dict)
    unfinished: str | None = None
    upto: int = 0
    written: int = 0


@dataclass(frozen=True, slots=True)
class NewLine:
    """What is to be written. ``position``: None: as it was."""

    kind: str
    message: str  # XML
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the trail. ``number`` counts from 1 over all files."""

    number: int
    at: datetime
    kind: str
    message: str
    previous: str
    position: Position
    hash: str


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: the number and the hash of its last line. Number 0: it is empty."""

    number: int = 0
    hash: str = FIRST


@dataclass(frozen=True, slots=True)
class Verified:
    """A chain that holds. ``unfinished``: bytes after the last whole line, of a write that was interrupted."""

    head: Head
    files: int
    unfinished: int


def append(folder: Path, lines: Sequence[NewLine], now: datetime) -> Head:
    """Write lines durably, all in one go; returns the new end. Safe from several processes.

    Raises:
        OSError: they cannot be written; then none of them is in the trail.
    """
    with locked(folder, exclusive=True):
        last = _last(folder)
        number, previous = last.head.number, last.head.hash
        position = last.position
        at = now.astimezone(UTC)
        content = bytearray()
        for one in lines:
            number += 1
            position = position if one.position is None else one.position
            raw = _encode(number, at, previous, one, position)
            content += raw
            previous = _hash_of(raw)
        if lines:
            name = max(f"audit-{at:%Y-%m}.jsonl", last.name)  # a clock that was set back starts no older file
            append_bytes(folder / name, bytes(content))
            _write_head(folder, Head(number, previous))
        return Head(number, previous)


def read_position(folder: Path) -> Position:
    """How far the sources have been read, from the last line."""
    return read_end(folder)[0]


def read_end(folder: Path) -> tuple[Position, datetime | None]:
    """How far the sources have been read, and when the last line was written; None: there is none, or it is damaged."""
    with locked(folder, exclusive=True):
        last = _last(folder)
        return last.position, last.at


def verify(folder: Path, *heads: Head) -> Verified:
    """Read the whole chain.

    Args:
        folder: of the trail; it need not be writable.
        heads: ends of this chain that were noted elsewhere, before this call.

    Raises:
        ChainBroken: naming the first line that is wrong.
        OSError: a file cannot be read.
    """
    with locked(folder, exclusive=False):
        expected = [*heads, read_head(folder)]
        number, previous, unfinished, files = 0, FIRST, 0, 0
        awaited: dict[int, set[str]] = {}
        for one in expected:
            if one.number:
                awaited.setdefault(one.number, set()).add(one.hash)
        for path in trail_files(folder):
            files += 1
            if unfinished:
                raise ChainBroken(f"line {number + 1}: the file before {path.name} ends in the middle of it")
            with path.open("rb") as stream:
                for raw in stream:
                    if not raw.endswith(b"\n"):
                        unfinished = len(raw)
                        break
                    number += 1
                    _check(raw, number, previous, path)
                    previous = _hash_of(raw)
                    if awaited.pop(number, {previous}) != {previous}:
                        raise ChainBroken(f"line {number} ({path.name}): it was changed; the noted hash is another")
        if awaited:
            raise ChainBroken(
                f"line {number + 1}: it is missing; the trail had {max(awaited)} lines and now has {number}"
            )
        return Verified(Head(number, previous), files, unfinished)


def _check(raw: bytes, number: int, previous: str, path: Path) -> None:
    try:
        line = decode(raw)
    except (ValueError, KeyError, TypeError) as error:
        raise ChainBroken(f"line {number} ({path.name}): it is no line of an audit trail") from error
    if line.number != number:
        raise ChainBroken(f"line {number} ({path.name}): it is missing; line {line.number} stands there")
    if line.previous != previous:
        wrong = max(number - 1, 1)
        raise ChainBroken(f"line {wrong} ({path.name}): it was changed; line {number} holds another hash")


def read_lines(folder: Path, after: int = 0) -> Iterator[Line]:
    """The whole lines with a number above ``after``, oldest first; what is written meanwhile may lack."""
    wanted: list[Path] = []
    for path in reversed(trail_files(folder)):
        wanted.insert(0, path)
        first = next(_lines_in(path), None)
        if first is not None and first.number <= after + 1:
            break  # what is in older files has a lower number
    for path in wanted:
        yield from _lines_in(path, after)


def _lines_in(path: Path, after: int = 0) -> Iterator[Line]:
    with path.open("rb") as stream:
        for raw in stream:
            number = _NUMBER.match(raw)
            if raw.endswith(b"\n") and (number is None or int(number[1]) > after):
                try:
                    yield decode(raw)
                except (ValueError, KeyError, TypeError):
                    continue  # damaged: `verify` names it


def last_of(folder: Path, kinds: Collection[str]) -> str:
    """The kind of the newest line that is of one of these; empty if there is none."""
    for path in reversed(trail_files(folder)):
        found = [one.kind for one in _lines_in(path) if one.kind in kinds]
        if found:
            return found[-1]
    return ""


def decode(raw: bytes) -> Line:
    """A line from its bytes.

    Raises:
        ValueError, KeyError, TypeError: they are none.
    """
    content = json.loads(raw)
    partial = content.get("unfinished")
    position = Position(
        {str(key): int(value) for key, value in content["read"].items()},
        *(() if partial is None else (partial["source"], partial["upto"], partial["written"])),
    )
    return Line(
        int(content["n"]),
        datetime.fromisoformat(content["at"]),
        content["kind"],
        content["message"],
        content["previous"],
        position,
        _hash_of(raw),
    )


def _encode(number: int, at: datetime, previous: str, line: NewLine, position: Position) -> bytes:
    content: dict[str, Any] = {"n": number, "at": at.isoformat(timespec="milliseconds"), "previous": previous}
    content |= {"kind": line.kind, "read": dict(position.read)}
    if position.unfinished is not None:
        lot = {"source": position.unfinished, "upto": position.upto, "written": position.written}
        content["unfinished"] = lot
    content["message"] = line.message
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _hash_of(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


# --- the end of the chain ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Last:
    name: str
    head: Head
    position: Position
    at: datetime | None = None


def _last(folder: Path) -> _Last:
    """The end of the chain. What an interrupted write left after it is removed: it was never said to be written."""
    files = trail_files(folder)
    name = files[-1].name if files else ""
    for path in reversed(files):
        raw = last_line(path)
        if raw is None:
            continue
        try:
            line = decode(raw)
        except (ValueError, KeyError, TypeError):
            # Somebody has written into it. The trail goes on, and `verify` names this line.
            _log.error("the last line of the audit trail is damaged", extra={"file": path.name})
            before = max((one.number for one in read_lines(folder)), default=0)
            return _Last(name, Head(before + 1, _hash_of(raw)), _last_position(folder))
        return _Last(name, Head(line.number, line.hash), line.position, line.at)
    return _Last(name, Head(), Position())


def _last_position(folder: Path) -> Position:
    """From the last line that can be read."""
    found = Position()
    for path in trail_files(folder):
        for raw in path.read_bytes().splitlines(keepends=True):
            try:
                found = decode(raw).position
            except (ValueError, KeyError, TypeError):
                continue
    return found


def read_head(folder: Path) -> Head:
    """The noted end of the chain; that of an empty one, if none is noted."""
    try:
        content = json.loads((folder / "head.json").read_bytes())
        return Head(int(content["n"]), str(content["hash"]))
    except FileNotFoundError:
        return Head()
    except (ValueError, KeyError, TypeError) as error:
        raise ChainBroken("head.json: it does not say where the trail ends") from error


def _write_head(folder: Path, head: Head) -> None:
    """Note the end of the chain. The note may lag behind: the lines are there."""
    try:
        replace_file(folder / "head.json", json.dumps({"n": head.number, "hash": head.hash}).encode() + b"\n")
    except OSError as error:
        _log.warning("the end of the audit trail is not noted", extra={"error": error.strerror})
