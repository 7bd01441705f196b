"""Pages for people who release results: ``/`` lists what is held, ``/review/...`` shows one and takes the decision.

Rendered here, without a script; what a browser may load is said by the pages' content security policy.
"""

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from config.settings import Settings
from config.web import WebAccess
from processing.results import Level
from service import release
from service.audit import AuditEvent, AuditKind, record
from service.database import Database
from service.release_api import Signature, signing_of
from service.signatures import CannotSign, QueryCode, RejectCode
from service.web_access import User
from service.web_tokens import Role

_Target = Annotated[str, PathParameter(pattern=r"^(job|report)-[0-9]{1,10}$")]
#: What a page may load and do; files that are shown by themselves have one of their own.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; object-src 'self'; frame-ancestors 'none';"
    " base-uri 'none'; form-action 'none'"
)
_SHOWN = {".png": "image/png", ".pdf": "application/pdf", ".html": "text/html; charset=utf-8"}
_REGIONS = {"nucleus": "nucleus", "anterior_annulus": "anterior annulus", "posterior_annulus": "posterior annulus"}
APPROVAL = "I reviewed the segmentation and approve release"


def build_review_pages(database: Database, settings: Settings) -> APIRouter:
    """The routes; who may call them is decided before (:mod:`service.web_access`)."""
    pages = APIRouter(include_in_schema=False)

    @pages.get("/")
    def front(request: Request) -> Response:
        """What is held."""
        return _page("held.html", request, settings, items=release.list_held(database), now=datetime.now(UTC))

    @pages.get("/review/style.css")
    def style() -> Response:
        """How the pages look."""
        return Response((files("service") / "templates" / "review.css").read_bytes(), media_type="text/css")

    @pages.get("/review/{target}")
    def show(target: _Target, request: Request) -> Response:
        """One result or report, and the forms of a decision."""
        item, user = _item(database, target), request.state.user.name
        seen = AuditEvent(AuditKind.VIEWED, datetime.now(UTC), by=user, studies=(item.study_uid,), detail=target)
        record(database, seen)
        return _show(database, settings, request, target)

    @pages.post("/review/{target}")
    async def decide(target: _Target, request: Request) -> Response:
        """A form was sent: approve, reject or query."""
        form = {key: values[-1] for key, values in parse_qs((await request.body()).decode()).items()}
        try:
            _decide(database, settings, request, _item(database, target), form)
        except (CannotSign, release.CannotDecide, ValueError) as error:
            return _show(database, settings, request, target, fault=str(error), status=409)
        return RedirectResponse(f"/review/{target}", status_code=303)

    @pages.get("/review/{target}/file/{name}")
    def file(target: _Target, name: Annotated[str, PathParameter(pattern=r"^[a-z0-9._-]{1,64}$")]) -> Response:
        """A picture or the report of it."""
        folder = database.storage_dir / _item(database, target).folder
        if name not in {path.name for path in _shown_files(folder)}:
            raise HTTPException(404, "There is no such file.")
        headers = {} if name.endswith(".png") else {"Content-Security-Policy": _REPORT_POLICY}
        media_type = _SHOWN[Path(name).suffix]
        return FileResponse(folder / name, media_type=media_type, headers=headers, content_disposition_type="inline")

    return pages


def _decide(database: Database, settings: Settings, request: Request, item: release.Item, form: dict[str, str]) -> None:
    said = Signature(meaning=form.get("meaning", ""), reason=form.get("reason", ""), by=form.get("by", ""))
    action, code = form.get("action", ""), form.get("code", "")
    if action == "approve":
        seen = form.get("content_sha256", "")
        if not seen:
            raise CannotSign("it is not told what was looked at")
        release.approve(database, item.target, signing_of(request, said, settings, content_sha256=seen))
    elif action == "reject":
        release.reject(database, item.target, signing_of(request, said, settings, code=code))
    elif action == "query":
        due_on = datetime.now(UTC).date() + timedelta(days=14)
        release.ask_site(database, item.target, signing_of(request, said, settings, code=code), due_on)
    else:
        raise CannotSign("no decision was named")


def _item(database: Database, target: str) -> release.Item:
    item = release.get_item(database, release.parse_target(target))
    if item is None:
        raise HTTPException(404, f"There is no {target}.")
    return item


def _show(
    database: Database, settings: Settings, request: Request, target: str, *, fault: str = "", status: int = 200
) -> Response:
    item = _item(database, target)
    folder = database.storage_dir / item.folder
    try:
        described = release.describe(database, item)
    except release.CannotDecide as error:  # its files are gone
        raise HTTPException(410, f"{error}.") from error
    names = [path.name for path in _shown_files(folder)]
    facts = {
        "item": item,
        "described": described,
        "pictures": [name for name in names if name.endswith(".png")],
        "documents": [name for name in names if not name.endswith(".png")],
        "fault": fault,
        "reject_codes": list(RejectCode),
        "query_codes": list(QueryCode),
        "approval": APPROVAL,
        **_numbers(folder),
    }
    return _page("review.html", request, settings, status=status, **facts)


def _page(template: str, request: Request, settings: Settings, *, status: int = 200, **values: Any) -> Response:
    user: User = request.state.user
    about = {"user": user, "may_sign": user.role >= Role.REVIEWER}
    about["names_itself"] = settings.web.access is WebAccess.LOOPBACK
    about["node"] = settings.ae_title
    text = _environment().get_template(template).render(**about, **values)
    # With no-referrer, as elsewhere, a browser would not say that a form is this site's own (Origin: null).
    return HTMLResponse(text, status, {"Content-Security-Policy": POLICY, "Referrer-Policy": "same-origin"})


def _shown_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in _SHOWN and path.is_file())


def _numbers(folder: Path) -> dict[str, Any]:
    """The table of discs and what is to be checked, as result.json has them."""
    path = folder / "result.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    discs = []
    for disc in sorted(content.get("discs", ()), key=lambda one: -Level[one["level"]]):
        places = {"whole disc": disc, **{text: disc.get("regions", {}).get(name) for name, text in _REGIONS.items()}}
        cells = {text: _means(place) for text, place in places.items()}
        discs.append(
            {"name": _level_name(disc["level"]), "volume_ml": disc.get("volume_mm3", 0) / 1000, "cells": cells}
        )
    return {"reasons": content.get("reasons", ()), "discs": discs, "places": ["whole disc", *_REGIONS.values()]}


def _means(place: dict[str, Any] | None) -> tuple[str, str]:
    """Mean T1rho and T2 in ms; a dash where there is none."""
    found = [((place or {}).get(quantity) or {}).get("mean") for quantity in ("t1rho_ms", "t2_ms")]
    t1rho, t2 = ("–" if mean is None else f"{mean:.1f}" for mean in found)
    return t1rho, t2


def _level_name(level: str) -> str:
    """L4L5 as people write it."""
    name = Level[level].name
    return f"{name[:2]}/{name[2:]}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("service"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["moment"] = lambda at: f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    environment.filters["words"] = lambda code: str(code).replace("_", " ").lower()
    return environment
