"""Keeps of a finished analysis what the trials need of it, so that nothing later needs its files."""

import json
import logging
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select

from dicom_io.acquisition import acquisition_of_entry
from processing.refusal import ReasonCode
from service import database as node
from service import trial_tables as db
from service.database import Database
from service.job_records import exam_folder
from service.states import JobState

_log = logging.getLogger(__name__)


def new_results(database: Database, exam_id: int) -> list[dict[str, Any]]:
    """The rows of ``trial_result`` that are still to be written for an exam, from the files of its analyses."""
    job, table = node.job, db.trial_result
    query = (
        select(job.c.id, job.c.exam_id, job.c.version, job.c.verdict, job.c.finished_at, job.c.protocol)
        .where(
            job.c.exam_id == exam_id,
            job.c.state == str(JobState.DONE),
            job.c.id.not_in(select(table.c.job_id).where(table.c.exam_id == exam_id)),
        )
        .order_by(job.c.version)
    )
    with database.read() as connection:
        rows = connection.execute(query).all()
    return [_kept(row, database.storage_dir / exam_folder(exam_id) / f"v{row.version}") for row in rows]


def keep_results(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """Write rows of :func:`new_results`, inside the caller's transaction; what another process wrote stays."""
    table = db.trial_result
    for row in rows:
        if connection.execute(select(table.c.job_id).where(table.c.job_id == row["job_id"])).first() is None:
            connection.execute(insert(table).values(**row))


def _kept(row: Any, folder: Path) -> dict[str, Any]:
    """The row of one analysis. Files that are gone or broken are told as a reason, not passed over."""
    kept: dict[str, Any] = {
        "job_id": row.id,
        "exam_id": row.exam_id,
        "version": row.version,
        "verdict": row.verdict or "",
        "finished_at": row.finished_at,
        "protocol": row.protocol,
        "reasons": [],
        "versions": {},
        "discs": {},
        "acquisition": None,
    }
    try:
        content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        kept["reasons"] = [{"code": one["code"], "detail": one["detail"]} for one in content.get("reasons", ())]
        kept["versions"] = dict(content.get("versions", {}))
        kept["discs"] = {
            one["level"]: {"volume_mm3": one.get("volume_mm3"), "shape": one.get("shape") or None}
            for one in content.get("discs", ())
        }
        acquisition_of_entry(content.get("acquisition"))  # of the form that will be asked for
        kept["acquisition"] = content.get("acquisition")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.error("result not read", extra={"job": row.id, "error": type(error).__name__})
        detail = f"the result.json of job {row.id} cannot be read ({type(error).__name__})"
        kept["reasons"] = [{"code": str(ReasonCode.INTERNAL), "detail": detail}]
    return kept
