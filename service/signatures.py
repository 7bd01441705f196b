"""Electronic signatures: who decided what, when, with which meaning, bound to the bytes that were decided on."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from service import trial_tables as trials
from service.audit import AuditEvent, AuditKind, note

#: Folder of the de-identified copies, in that of a result: they come and go with the destinations.
COPIES = "deidentified"


class CannotSign(Exception):
    """A signature without what makes it one; the text says what is missing."""


class RejectCode(StrEnum):
    """Coded reasons for which a person rejects a result."""

    SEGMENTATION_WRONG = "SEGMENTATION_WRONG"
    LEVELS_WRONG = "LEVELS_WRONG"
    IMAGE_QUALITY = "IMAGE_QUALITY"
    MOTION = "MOTION"
    METAL_OR_VACUUM = "METAL_OR_VACUUM"
    WRONG_SUBJECT = "WRONG_SUBJECT"
    WRONG_VISIT = "WRONG_VISIT"
    PROTOCOL_DEVIATION = "PROTOCOL_DEVIATION"
    IDENTIFIERS_FOUND = "IDENTIFIERS_FOUND"
    PATIENT_SAFETY = "PATIENT_SAFETY"
    OTHER = "OTHER"


class QueryCode(StrEnum):
    """Coded reasons for which a site is asked."""

    WRONG_FOV = "WRONG_FOV"
    MISSING_IMAGES = "MISSING_IMAGES"
    TSL_UNKNOWN = "TSL_UNKNOWN"
    SCANNER_CHANGED = "SCANNER_CHANGED"  # or its software, or the coil
    MOTION = "MOTION"
    METAL_OR_VACUUM = "METAL_OR_VACUUM"
    LEVELS_UNCERTAIN = "LEVELS_UNCERTAIN"
    WRONG_SUBJECT = "WRONG_SUBJECT"
    OUT_OF_WINDOW = "OUT_OF_WINDOW"
    TIME_OF_DAY = "TIME_OF_DAY"
    IDENTIFIERS_FOUND = "IDENTIFIERS_FOUND"
    POSITION = "POSITION"  # laterality or position


class Resolution(StrEnum):
    """How a query ended."""

    RESENT = "RESENT"
    RESCANNED = "RESCANNED"
    ACCEPTED = "ACCEPTED"  # with a justification
    NOT_EVALUABLE = "NOT_EVALUABLE"


@dataclass(frozen=True, slots=True)
class Signing:
    """What a person puts down. ``via``: web, or the command line with the system's user.

    ``content_sha256``: of what the person looked at, where that is known; it must still be there.
    """

    by: str
    via: str
    at: datetime
    meaning: str
    reason: str = ""
    code: str = ""
    content_sha256: str = ""

    def check(self, *, needs_reason: bool) -> None:
        """Pass if it is a signature.

        Raises:
            CannotSign: it is not.
        """
        if not self.by.strip():
            raise CannotSign("a signature needs a name: who signs")
        if not self.meaning.strip():
            raise CannotSign("a signature needs its meaning, such as: I reviewed the segmentation and approve release")
        if needs_reason and not self.reason.strip():
            raise CannotSign("a reason is needed")
        for name, value, most in (("name", self.by, 64), ("meaning", self.meaning, 255), ("reason", self.reason, 2000)):
            if len(value) > most:
                raise CannotSign(f"the {name} has more than {most} characters")


@dataclass(frozen=True, slots=True)
class Content:
    """The files that a decision is about: path relative to the storage folder -> SHA-256."""

    files: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """One digest over all of them and their names."""
        lines = [f"{digest}  {path}" for path, digest in sorted(self.files.items())]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def content_of(storage_dir: Path, folder: Path, objects: Iterable[str]) -> Content:
    """All files of a result's or report's folder, but of de-identified copies only those among ``objects``.

    Those are what is to be sent, relative to the storage folder as all paths are.

    Raises:
        FileNotFoundError: one of them, or all, are not there (any more).
    """
    whole = storage_dir / folder
    paths = {path for path in whole.rglob("*") if path.is_file() and whole / COPIES not in path.parents}
    paths |= {storage_dir / one for one in objects}
    if not paths:
        raise FileNotFoundError(folder)
    return Content({str(path.relative_to(storage_dir)): file_sha256(path) for path in sorted(paths)})


def file_sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sign(
    connection: Connection,
    subject_of: str,
    key: int,
    decision: str,
    signing: Signing,
    content_sha256: str,
    *,
    studies: tuple[str, ...] = (),
) -> int:
    """Put a signature down, and in the audit trail that it was; inside the caller's transaction. Returns its number.

    The trail has neither the reason nor the meaning: they are free text of a person.
    """
    result = connection.execute(
        insert(trials.signature).values(
            subject_of=subject_of,
            subject_key=key,
            decision=decision,
            meaning=signing.meaning.strip(),
            code=signing.code or None,
            reason=signing.reason.strip() or None,
            signed_by=signing.by.strip(),
            signed_at=signing.at,
            signed_via=signing.via[:96],
            content_sha256=content_sha256,
        )
    )
    assert result.inserted_primary_key is not None
    code = f", {signing.code}" if signing.code else ""
    detail = f"{subject_of} {key} {decision}{code}; {signing.via}; content {content_sha256[:16] or 'none'}"
    note(connection, AuditEvent(AuditKind.DECIDED, signing.at, by=signing.by.strip(), studies=studies, detail=detail))
    return int(result.inserted_primary_key[0])


def signatures_on(connection: Connection, subject_of: str, key: int) -> list[dict[str, Any]]:
    """The signatures on one thing, oldest first, for people."""
    table = trials.signature
    query = select(table).where(table.c.subject_of == subject_of, table.c.subject_key == key).order_by(table.c.id)
    return [_as_dict(row) for row in connection.execute(query).all()]


def _as_dict(row: Row[Any]) -> dict[str, Any]:
    names = ("id", "decision", "meaning", "code", "reason", "signed_by", "signed_via", "content_sha256")
    return {**{name: row._mapping[name] for name in names}, "signed_at": row.signed_at.isoformat()}
