"""Release by HTTP, under ``/api/release``: what is held, and signed decisions about it.

Who signs is who called: each request shows who it is from. Only where callers of this machine are let in unasked must
they say who they are, as on the command line.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Request
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field

from config.settings import Settings
from config.web import WebAccess
from service import queries, recall, release
from service.database import Database
from service.signatures import CannotSign, QueryCode, RejectCode, Resolution, Signing
from service.states import QueryState
from service.web_access import User

_Target = Annotated[str, PathParameter(pattern=r"^((job|report)-)?[0-9]{1,10}$", description="12, job-12 or report-3")]


class Signature(BaseModel):
    """A person's signature, as it comes with a decision."""

    model_config = ConfigDict(extra="forbid")

    meaning: str = Field(max_length=255, description="What the signature means; must not be empty")
    reason: str = Field("", max_length=2000, description="Why. No identity")
    by: str = Field("", max_length=64, description="Who signs; only where callers of this machine are let in unasked")


class Approval(Signature):
    """Let it go."""

    content_sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of what was looked at, as it was shown")


class Rejection(Signature):
    """Never let it go."""

    code: RejectCode


class Question(Signature):
    """Ask the site; ``reason`` is the question."""

    code: QueryCode
    due_on: date | None = Field(None, description="Empty: in 14 days")


class Answer(Signature):
    """How a query ended; ``reason`` says more."""

    code: Resolution


class Recall(Signature):
    """Stop what waits, send nothing again; one of job, study, or trial and subject."""

    job: int | None = Field(None, ge=1, le=2**31 - 1)
    study: str = Field("", max_length=64)
    trial: str = Field("", max_length=64)
    subject: str = Field("", max_length=64)
    code: RejectCode | None = None


def signing_of(request: Request, body: Signature, settings: Settings, **more: str) -> Signing:
    """The signature of who calls.

    Raises:
        CannotSign: who it is is not known, or they sign for somebody else.
    """
    user: User = request.state.user
    by, via = user.name, "web"
    if settings.web.access is WebAccess.LOOPBACK:
        by, via = body.by, "web of this machine, by the name they gave"
    elif body.by not in ("", user.name):
        raise CannotSign(f"you are {user.name}: nobody signs for somebody else")
    return Signing(by, via, datetime.now(UTC), body.meaning, body.reason, **more)


def build_release_api(database: Database, settings: Settings) -> APIRouter:
    """The routes; who may call them is decided before (:mod:`service.web_access`)."""
    api = APIRouter(prefix="/api/release")

    @api.get("")
    def list_held() -> list[dict[str, Any]]:
        """What is held, and why, oldest first."""
        return [item.as_dict() for item in release.list_held(database)]

    @api.get("/queries")
    def list_queries(state: QueryState | None = None) -> list[queries.Query]:
        """Questions to sites, oldest first."""
        return queries.list_queries(database, state)

    @api.post("/queries/{query_id}/resolve")
    def resolve(
        query_id: Annotated[int, PathParameter(ge=1, le=2**31 - 1)], body: Answer, request: Request
    ) -> dict[str, Any]:
        """Close a query."""
        with _told():
            queries.resolve(database, query_id, signing_of(request, body, settings, code=body.code))
        return {"query": query_id, "state": "resolved"}

    @api.post("/recall")
    def take_back(body: Recall, request: Request) -> dict[str, Any]:
        """Stop what waits of a job, study, subject or trial, and list all that was ever sent of it."""
        if sum([body.job is not None, bool(body.study), bool(body.trial or body.subject)]) != 1:
            raise HTTPException(422, "Name one: job, study, or trial and subject.")
        chosen = recall.Selection(body.job, body.study, body.subject, body.trial)
        with _told():
            found = recall.recall(database, chosen, signing_of(request, body, settings, code=body.code or ""))
        return {"selection": str(chosen), "sent": found.sent, "not_sent": found.stopped}

    @api.get("/{target}")
    def show(target: _Target) -> dict[str, Any]:
        """One result or report: what holds it, its signatures, and the digest to approve it by."""
        with _told():
            item = release.get_item(database, _target(target))
            if item is None:
                raise HTTPException(404, f"There is no {target}.")
            return release.describe(database, item)

    @api.post("/{target}/approve")
    def approve(target: _Target, body: Approval, request: Request) -> dict[str, Any]:
        """Let it go."""
        with _told():
            signing = signing_of(request, body, settings, content_sha256=body.content_sha256)
            release.approve(database, _target(target), signing)
        return show(target)

    @api.post("/{target}/reject")
    def reject(target: _Target, body: Rejection, request: Request) -> dict[str, Any]:
        """Never let it go."""
        with _told():
            release.reject(database, _target(target), signing_of(request, body, settings, code=body.code))
        return show(target)

    @api.post("/{target}/query")
    def ask(target: _Target, body: Question, request: Request) -> dict[str, Any]:
        """Ask the site about it."""
        due_on = body.due_on or datetime.now(UTC).date() + timedelta(days=14)
        with _told():
            signing = signing_of(request, body, settings, code=body.code)
            return {"query": release.ask_site(database, _target(target), signing, due_on)}

    return api


def _target(text: str) -> release.Target:
    try:
        return release.parse_target(text)
    except ValueError as error:
        raise HTTPException(404, f"There is no {text}.") from error


@contextmanager
def _told() -> Iterator[None]:
    """What cannot be signed or decided, as an answer."""
    try:
        yield
    except CannotSign as error:
        raise HTTPException(422, f"{error}.") from error
    except release.CannotDecide as error:
        raise HTTPException(409, f"{error}.") from error
    except (queries.NoSuchQuery, recall.NothingThere) as error:
        raise HTTPException(404, f"{error}.") from error
