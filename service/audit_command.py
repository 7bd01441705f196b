"""``discnode audit verify`` and ``discnode audit show``."""

import argparse
import sys
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

from sqlalchemy.exc import SQLAlchemyError

from config.settings import Settings
from service import audit_chain
from service.audit_chain import ChainBroken, Line

_Load = Callable[[Path | None], Settings]


def add_arguments(parser: argparse.ArgumentParser, load: _Load) -> None:
    """The actions of ``discnode audit``."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    verify = actions.add_parser("verify", help="whether any line was changed, removed, put in or cut off")
    show = actions.add_parser("show", help="the newest events")
    for action, command in ((verify, _verify), (show, _show)):
        where = action.add_mutually_exclusive_group(required=True)
        where.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="folder of the trail, or a copy of it")
        where.add_argument("--config", type=Path, help="settings file of the node (YAML)")
        action.set_defaults(command=command, load=load)
    show.add_argument("--last", type=int, default=50, metavar="N", help="how many (default: 50)")
    show.add_argument("--kind", help="only events of this kind, e.g. released")
    show.add_argument("--xml", action="store_true", help="the messages as they are")


def _folder(options: argparse.Namespace) -> Path:
    from service.audit_trail import audit_folder

    folder: Path = options.folder or audit_folder(options.load(options.config))
    return folder


def _verify(options: argparse.Namespace) -> int:
    folder = _folder(options)
    if not folder.is_dir():
        print(f"{folder}: no such folder: no trail has been written there yet, or it was removed", file=sys.stderr)
        return 2
    heads, noted = [], "its own note"
    if options.config is not None:
        from service.audit_trail import noted_head
        from service.database import open_database

        try:
            database = open_database(options.load(options.config))
            heads.append(noted_head(database))
            database.close()
            noted += " and with the database"
        except SQLAlchemyError as error:
            print(f"the database cannot be asked ({type(error).__name__})", file=sys.stderr)
    try:
        found = audit_chain.verify(folder, *heads)
    except ChainBroken as error:
        print(f"{folder}: broken: {error}", file=sys.stderr)
        return 1
    if found.unfinished:
        print(f"{folder}: the last write was interrupted; {found.unfinished} bytes will be removed at the next one")
    print(f"{folder}: ok, {found.head.number} lines in {found.files} files; agrees with {noted}")
    return 0


def _show(options: argparse.Namespace) -> int:
    if options.config is not None:
        _note_reading(options)
    wanted = (one for one in audit_chain.read_lines(_folder(options)) if options.kind in (None, one.kind))
    for line in deque(wanted, maxlen=max(options.last, 0)):
        print(line.message if options.xml else _summary(line))
    return 0


def _note_reading(options: argparse.Namespace) -> None:
    """That the trail was looked at belongs in it; where the database is away, it is shown all the same."""
    from service.audit import AuditEvent, AuditKind, record
    from service.database import open_database
    from service.quarantine_command import person

    try:
        database = open_database(options.load(options.config))
        record(database, AuditEvent(AuditKind.TRAIL_READ, datetime.now(UTC), by=person()))
        database.close()
    except SQLAlchemyError as error:
        print(f"the database cannot be told of it ({type(error).__name__})", file=sys.stderr)


def _summary(line: Line) -> str:
    """One line for people: number, when, what, who, about which studies."""
    root = ElementTree.fromstring(line.message)
    event = root.find("EventIdentification")
    assert event is not None
    name = root.find("EventIdentification/EventID")
    who = " -> ".join(one.get("UserID", "") for one in root.findall("ActiveParticipant"))
    studies = [
        one.get("ParticipantObjectID", "")
        for one in root.findall("ParticipantObjectIdentification")
        if one.get("ParticipantObjectTypeCodeRole") == "3"
    ]
    counts = sum(int(one.get("NumberOfInstances", "0")) for one in root.iter("SOPClass"))
    said = root.findtext("EventIdentification/EventOutcomeDescription", "")
    outcome = "" if event.get("EventOutcomeIndicator") == "0" else "FAILED"
    parts = (
        f"{line.number:8d}",
        event.get("EventDateTime", ""),
        f"{line.kind:12s}",
        "" if name is None else name.get("originalText", ""),
        who,
        *studies,
        f"{counts} objects" if counts else "",
        said,
        outcome,
    )
    return "  ".join(part for part in parts if part)
