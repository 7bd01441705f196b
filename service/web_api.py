"""The HTTP API under ``/api``: exams, analyses, and the quarantine as a place to work. Described by ``/openapi.json``.

Who may ask is decided before a request comes here (:mod:`service.web_access`); who changed something is recorded.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field

from config.protocol_cards import ProtocolCard, asked_elements
from config.settings import Settings
from processing.refusal import ReasonCode
from service import audit, deliveries, exams, jobs, quarantine, reconciliation, reprocessing
from service.database import Database
from service.exam_groups import CannotDiscard, discard_group
from service.quarantine_details import describe_item
from service.states import DeliveryState, ExamState, JobState, QuarantineState
from service.web_access import User

_Number = Annotated[int, PathParameter(ge=1, le=2**31 - 1)]
_Page = Annotated[int, Query(ge=1, le=10_000, description="At most so many, the newest")]


class Discard(BaseModel):
    """Why a case is closed; of a held exam, which images are set aside (none: all stay)."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field("", max_length=2000, description="Why the data are not needed; must not be empty")
    series_uid: str = Field("", max_length=64, description="Of a held exam: set only this series aside")
    patient: str = Field("", max_length=3, description="Of a held exam: set only this patient's images aside, e.g. B")


class Reprocess(BaseModel):
    """Why an analysis is made anew."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1, max_length=2000, description="Why; kept with the job. No identity")


def build_api(database: Database, cards: Sequence[ProtocolCard], settings: Settings) -> APIRouter:
    """The routes, for the protocol cards and the settings of the node."""
    api = APIRouter(prefix="/api")
    _add_quarantine(api, database, cards, settings)
    _add_analyses(api, database)
    _add_deliveries(api, database)
    return api


def _add_quarantine(api: APIRouter, database: Database, cards: Sequence[ProtocolCard], settings: Settings) -> None:
    @api.get("/quarantine")
    def list_quarantine(
        state: QuarantineState | None = None, code: ReasonCode | None = None, limit: _Page = 1000
    ) -> list[dict[str, Any]]:
        """The cases, oldest first."""
        return [item.as_dict() for item in quarantine.list_items(database, state=state, code=code)][-limit:]

    @api.get("/quarantine/{item_id}")
    def show_quarantine(item_id: _Number, request: Request) -> dict[str, Any]:
        """One case: its reason, what helps, and the header without identity. That it was looked at is recorded."""
        item = _item(database, item_id)
        described = describe_item(database, item, cards, settings.completion.repeats)
        if item.study_uid:
            audit.note_viewed(database, _name_of(request), item.study_uid, f"quarantined item {item_id}")
        return described

    @api.post("/quarantine/{item_id}/release")
    def release_quarantine(item_id: _Number, request: Request) -> dict[str, Any]:
        """Put the held thing back into the intake, to be judged again."""
        _item(database, item_id)
        try:
            done = quarantine.release(database, item_id, by=_name_of(request))
        except quarantine.CannotRelease as error:
            raise HTTPException(409, str(error)) from error
        return _changed(database, item_id, done)

    @api.post("/quarantine/{item_id}/discard")
    def discard_quarantine(item_id: _Number, body: Discard, request: Request) -> dict[str, Any]:
        """Close the case for good, or set images of a held exam aside."""
        item = _item(database, item_id)
        if not body.reason.strip():
            raise HTTPException(422, "A reason is needed: say why the data are not needed.")
        if not body.series_uid and not body.patient:
            done = quarantine.discard(database, item_id, reason=body.reason, by=_name_of(request))
            return _changed(database, item_id, done)
        chosen = {"series_uid": body.series_uid, "patient": body.patient}
        try:
            discard_group(database, item, asked_elements(cards), reason=body.reason, by=_name_of(request), **chosen)
        except CannotDiscard as error:
            raise HTTPException(409, str(error)) from error
        return _changed(database, item_id, True)


def _add_analyses(api: APIRouter, database: Database) -> None:
    @api.get("/exams")
    def list_exams(state: ExamState | None = None, limit: _Page = 1000) -> list[dict[str, Any]]:
        """The exams of the node, how far each is and what it waits for, oldest first."""
        found = [exam for exam in exams.list_exams(database) if state in (None, exam.state)]
        return [exam.as_dict() for exam in found[-limit:]]

    @api.get("/jobs")
    def list_jobs(state: JobState | None = None, limit: _Page = 1000) -> list[dict[str, Any]]:
        """The analyses, oldest first."""
        found = [job for job in jobs.list_jobs(database) if state in (None, job.state)]
        return [job.as_dict() for job in found[-limit:]]

    @api.get("/jobs/{job_id}")
    def show_job(job_id: _Number) -> dict[str, Any]:
        """One analysis."""
        job = jobs.get_job(database, job_id)
        if job is None:
            raise HTTPException(404, f"There is no job with number {job_id}.")
        return job.as_dict()

    @api.post("/jobs/{job_id}/retry")
    def retry_job(job_id: _Number, request: Request) -> dict[str, Any]:
        """Try a parked analysis again."""
        show_job(job_id)
        if not reprocessing.retry(database, job_id, by=_name_of(request)):
            raise HTTPException(409, f"Job {job_id} is not parked.")
        return show_job(job_id)

    @api.post("/jobs/{job_id}/reprocess")
    def reprocess_job(job_id: _Number, body: Reprocess, request: Request) -> dict[str, Any]:
        """Make an analysis anew, also a done one, as its exam's next version; returns the new job."""
        show_job(job_id)
        wanted = reprocessing.Request(body.reason, _name_of(request))
        try:
            return show_job(reprocessing.reprocess(database, job_id, wanted))
        except reprocessing.CannotReprocess as error:
            raise HTTPException(409, f"{error}.") from error


def _add_deliveries(api: APIRouter, database: Database) -> None:
    @api.get("/deliveries")
    def list_deliveries(
        state: DeliveryState | None = None, destination: str | None = None, limit: _Page = 1000
    ) -> list[dict[str, Any]]:
        """Result objects on their way to destinations, oldest first."""
        found = deliveries.list_deliveries(database, state=state, destination=destination)
        return [one.as_dict() for one in found[-limit:]]

    @api.get("/reconciliations")
    def list_reconciliations(limit: _Page = 100) -> list[dict[str, Any]]:
        """What the comparisons of node and destinations have found, oldest first."""
        return reconciliation.list_reconciliations(database, limit)


def _item(database: Database, item_id: int) -> quarantine.QuarantineItem:
    item = quarantine.get_item(database, item_id)
    if item is None:
        raise HTTPException(404, f"There is no quarantined item with number {item_id}.")
    return item


def _name_of(request: Request) -> str:
    user: User = request.state.user
    return user.name


def _changed(database: Database, item_id: int, done: bool) -> dict[str, Any]:
    item = _item(database, item_id)
    if not done:
        raise HTTPException(409, f"Item {item_id} is not held any more: it is {item.state}.")
    return item.as_dict()
