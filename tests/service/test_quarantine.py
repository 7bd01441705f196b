"""The quarantine as a place to work: commands and API on a node's record, without network."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from desk import IDLE_S, Desk
from fastapi import FastAPI
from records import later, open_database, settings_in
from small_mr_exam import mapss_signal, write_mapss
from sqlalchemy import select, update

from config.protocol_cards import load_cards
from config.settings import Settings
from dicom_io.inbox import Inbox
from dicom_io.receiver import BrokenObject
from processing.refusal import Reason, ReasonCode
from service import database as db
from service import jobs, quarantine
from service.arrivals import open_ledger
from service.audit import AuditEvent, AuditKind
from service.cli import main
from service.exam_groups import discard_group, list_groups
from service.health import Health
from service.intake import Intake
from service.quarantine_command import person
from service.states import ExamState, InstanceState, JobState
from service.web import build_web
from service.web_api import build_api

CANARIES = {
    "PatientName": "Canaryname^Given",
    "PatientID": "CANARYID77",
    "OperatorsName": "Canaryoperator",
    "InstitutionName": "Canary Hospital",
    "AccessionNumber": "CANARYACC",
}


class Site(Desk):
    """A desk with a settings file, for commands and the API."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "discnode.yaml"
        self.config.write_text(f"storage_dir: node\ncompletion:\n  idle_s: {IDLE_S}\n")
        settings = settings_in(folder, completion={"idle_s": IDLE_S})
        database = open_database(settings)
        super().__init__(settings, database, Inbox(database.inbox_dir), Intake(database, settings))

    @property
    def exam_state(self) -> ExamState:
        with self.database.read() as connection:
            return ExamState(connection.execute(select(db.exam.c.state)).scalar_one())

    def item(self, what: str = "exam") -> quarantine.QuarantineItem:
        (item,) = [one for one in quarantine.list_items(self.database, only_held=True) if one.what == what]
        return item

    def command(self, *words: object) -> int:
        return main(["quarantine", *map(str, words), "--config", str(self.config)])

    def client(self) -> "Client":
        api = build_api(self.database, load_cards(None), Settings())
        return Client(build_web(lambda: Health(()), api))


class Client:
    """Asks the application without a socket."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def get(self, url: str, **options: Any) -> httpx.Response:
        return asyncio.run(self._ask("GET", url, **options))

    def post(self, url: str, **options: Any) -> httpx.Response:
        return asyncio.run(self._ask("POST", url, **options))

    async def _ask(self, method: str, url: str, **options: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
            return await client.request(method, url, **options)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    opened = Site(tmp_path)
    yield opened
    opened.database.close()


def exam_files(folder: Path, **attributes: object) -> list[Path]:
    folder.mkdir()
    return write_mapss(folder, mapss_signal(), **{**CANARIES, **attributes})


def second_patient(folder: Path) -> list[Path]:
    """Two images of another patient that were sent under the same study, as their own series."""
    paths = exam_files(folder, PatientID="CANARYOTHER", SeriesInstanceUID="1.2.3.77")[:2]
    for number, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.77.{number}"
        dataset.save_as(path)
    return paths


@pytest.fixture
def mixed(site: Site, tmp_path: Path) -> Site:
    """A whole exam, and images of a second patient in its study."""
    site.arrive_all(exam_files(tmp_path / "one"))
    site.arrive_all(second_patient(tmp_path / "two"), calling_ae="OTHER", seconds=5)
    site.sweep(6)
    assert site.exam_state is ExamState.HELD
    return site


def shown(site: Site, item_id: int, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert site.command("show", item_id) == 0
    text = capsys.readouterr().out
    assert "canary" not in text.lower()
    described: dict[str, Any] = json.loads(text)
    return described


def test_two_patients_are_shown_as_groups_without_identity(mixed: Site, capsys: pytest.CaptureFixture[str]) -> None:
    described = shown(mixed, mixed.item().id, capsys)
    assert described["code"] == "IDENTITY_CONFLICT"
    assert "set their series aside" in described["suggestion"]
    groups = [(one["series_uid"], one["patient"], one["n_objects"], one["calling_aes"]) for one in described["groups"]]
    assert groups == [("1.2.3.1", "A", 28, ["SCANNER"]), ("1.2.3.77", "B", 2, ["OTHER"])]
    assert described["groups"][0]["header"]["Manufacturer"] == "GE MEDICAL SYSTEMS"
    assert described["groups"][0]["header"]["SeriesDescription"] == "MAPSS T1rho T2"


@pytest.mark.parametrize("choice", [("--series", "1.2.3.77"), ("--patient", "b")])
def test_the_wrong_patient_is_taken_out_and_the_exam_is_measured(
    mixed: Site, choice: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    item = mixed.item()
    assert mixed.command("discard", item.id, *choice, "--reason", "sent under the wrong study") == 0
    assert "2 objects set aside" in capsys.readouterr().out
    mixed.sweep(7)
    assert mixed.exam_state is ExamState.QUEUED
    (job,) = jobs.list_jobs(mixed.database)
    assert len(job.inputs) == 28
    closed = quarantine.get_item(mixed.database, item.id)
    assert closed is not None
    assert (closed.state, closed.resolved_by) == ("discarded", person())
    assert "sent under the wrong study" in (closed.resolved_reason or "")
    groups = list_groups(mixed.database, 1, ())
    assert [(one.n_objects, one.n_kept) for one in groups] == [(28, 28), (2, 0)]
    assert all((mixed.database.inbox_dir / path).exists() for path in groups[1].paths)


def test_an_analysis_that_would_use_what_is_taken_out_is_given_up(mixed: Site) -> None:
    item = mixed.item()
    (group, _) = list_groups(mixed.database, 1, ())
    with mixed.database.write() as connection:
        assert item.exam_id is not None
        jobs.enqueue(connection, jobs.JobRequest(item.exam_id, group.paths, "d", "SCANNER", "ge-mapss"), later(6))
    discard_group(mixed.database, item, (), reason="wrong", series_uid="1.2.3.1")
    (job,) = jobs.list_jobs(mixed.database)
    assert job.state is JobState.SUPERSEDED


def test_what_cannot_be_taken_out_is_said(mixed: Site, capsys: pytest.CaptureFixture[str]) -> None:
    item = mixed.item()
    assert mixed.command("discard", item.id, "--series", "9.9", "--reason", "x") == 2
    assert "no such images" in capsys.readouterr().err
    with mixed.database.write() as connection:
        new = update(db.instance).where(db.instance.c.series_uid == "1.2.3.77")
        connection.execute(new.values(state=str(InstanceState.RECEIVED)))
    assert mixed.command("discard", item.id, "--series", "1.2.3.77", "--reason", "x") == 2
    assert "try again" in capsys.readouterr().err
    assert mixed.item().id == item.id
    assert mixed.command("discard", item.id, "--reason", "  ") == 2


def test_the_file_of_a_discarded_object_stays_while_an_analysis_reads_it(site: Site, tmp_path: Path) -> None:
    files = exam_files(tmp_path / "one")
    site.arrive_all(files)
    site.sweep(1)
    (job,) = jobs.list_jobs(site.database)
    with site.database.write() as connection:
        row = connection.execute(select(db.instance).where(db.instance.c.path == job.inputs[0])).one()
        db.move(connection, db.instance, row.id, InstanceState.HELD)
        quarantine.hold_instance(connection, row.id, Reason(ReasonCode.UNREADABLE, "made up"), later(2))
    assert quarantine.discard(site.database, site.item("object").id, reason="not needed")
    assert (site.database.inbox_dir / job.inputs[0]).exists()


def test_list_filters_and_tells_age_sender_and_detail(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.command("list") == 0
    assert capsys.readouterr().out == ""
    stored = site.inbox.store((b"junk",))
    broken = BrokenObject("", stored.name, stored.sha256, ReasonCode.UNREADABLE, "cut short", "OLDSCANNER", later(0))
    open_ledger(site.database).record_broken(broken)
    assert site.command("list") == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["id", "state", "age", "code", "what", "sender", "detail"]
    for part in ("held", "UNREADABLE", "object", "OLDSCANNER", "cut short"):
        assert part in line
    assert site.command("list", "--json", "--state", "held", "--code", "UNREADABLE") == 0
    assert [one["calling_ae"] for one in json.loads(capsys.readouterr().out)] == ["OLDSCANNER"]
    assert site.command("list", "--json", "--state", "released") == 0
    assert json.loads(capsys.readouterr().out) == []
    described = shown(site, 1, capsys)
    assert described["header"] is None
    assert "Send the object again" in described["suggestion"]
    assert site.command("release", 1) == 2
    assert "can only be discarded" in capsys.readouterr().err


def test_an_incomplete_exam_says_what_to_send(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [path for path in exam_files(tmp_path / "one") if not path.name.endswith("4-2")]
    site.arrive_all(files)
    site.sweep()
    described = shown(site, site.item().id, capsys)
    assert described["needed"] == ["Send the missing images of ge-mapss: TSL 40 ms at slice 3."]


def test_a_name_in_the_series_description_is_struck_out(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.arrive_all(exam_files(tmp_path / "one", SeriesDescription="Spine of canaryname T1r"))
    site.sweep()
    described = shown(site, site.item().id, capsys)
    assert described["groups"][0]["header"]["SeriesDescription"] == "Spine of *** T1r"
    assert "Spine of *** T1r" in described["detail"]
    assert "Spine of *** T1r" in described["needed"][0]


# --- the API ----------------------------------------------------------------------------------------------------------


def test_the_api_lists_shows_and_settles(mixed: Site) -> None:
    client = mixed.client()
    (listed,) = client.get("/api/quarantine", params={"state": "held", "code": "IDENTITY_CONFLICT"}).json()
    url = f"/api/quarantine/{listed['id']}"
    described = client.get(url)
    assert [one["patient"] for one in described.json()["groups"]] == ["A", "B"]
    assert "canary" not in described.text.lower()
    with mixed.database.read() as connection:
        events = [AuditEvent.from_json(one) for one in connection.execute(select(db.audit_queue.c.event)).scalars()]
    seen = [(one.by, one.studies, one.detail) for one in events if one.kind is AuditKind.VIEWED]
    assert seen == [("api", (described.json()["study_uid"],), f"quarantined item {listed['id']}")]
    answer = client.post(f"{url}/discard", json={"reason": "wrong study", "series_uid": "1.2.3.77"})
    assert (answer.status_code, answer.json()["state"], answer.json()["resolved_by"]) == (200, "discarded", "api")
    mixed.sweep(7)
    assert [one["state"] for one in client.get("/api/exams").json()] == ["queued"]
    (job,) = client.get("/api/jobs", params={"state": "queued"}).json()
    assert client.get(f"/api/jobs/{job['id']}").json() == job
    again = client.post(f"{url}/release")
    assert again.status_code == 409
    assert "not held any more: it is discarded" in again.json()["detail"]


def test_the_api_releases(mixed: Site) -> None:
    item = mixed.item()
    answer = mixed.client().post(f"/api/quarantine/{item.id}/release")
    assert (answer.status_code, answer.json()["state"], answer.json()["resolved_by"]) == (200, "released", "api")
    assert mixed.exam_state is ExamState.COLLECTING


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": "  "}, {"reason": "x", "serie": "1"}])
def test_a_discard_without_a_reason_is_refused(mixed: Site, body: dict[str, str]) -> None:
    answer = mixed.client().post(f"/api/quarantine/{mixed.item().id}/discard", json=body)
    assert answer.status_code == 422
    assert "serie" in body or "say why" in answer.json()["detail"]
    assert mixed.exam_state is ExamState.HELD


def test_what_is_not_there_is_404_and_what_cannot_be_is_409(mixed: Site) -> None:
    client = mixed.client()
    for path in ("/api/quarantine/99", "/api/jobs/99"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert "number 99" in answer.json()["detail"]
    assert client.post("/api/quarantine/99/release").status_code == 404
    assert client.get(f"/api/quarantine/{10**30}").status_code == 422
    url = f"/api/quarantine/{mixed.item().id}/discard"
    assert client.post(url, json={"reason": "x", "series_uid": "9.9"}).status_code == 409


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"host": "evil.example:8080"}, {"origin": "null"}]
)
def test_a_page_of_another_site_changes_nothing(mixed: Site, headers: dict[str, str]) -> None:
    answer = mixed.client().post(f"/api/quarantine/{mixed.item().id}/release", headers=headers)
    assert answer.status_code == 403
    assert mixed.exam_state is ExamState.HELD


def test_the_api_describes_itself(site: Site) -> None:
    paths = site.client().get("/openapi.json").json()["paths"]
    assert {"/api/quarantine", "/api/quarantine/{item_id}/release", "/api/exams", "/api/jobs"} <= set(paths)


@pytest.mark.parametrize("action", [["show"], ["release"], ["discard", "--reason", "x"]])
def test_a_number_that_no_database_holds_is_a_wrong_argument(mixed: Site, action: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        mixed.command(*action, 10**20)
