"""Two hundred canaries come in as patients do; none is found where an identity must not stand."""

import shutil
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pydicom
import pytest
from canaries import Canaries, identity, malform, nest
from node_process import Node, destination
from notice_hook import Hook
from peers import Storescp, free_port, need, wait_until
from pynetdicom import AE
from pynetdicom.dsutils import encode_file_meta
from small_mr_exam import mapss_signal, write_mapss

from config.notifications import Event
from dicom_io.sender import Peer, send_files
from service.cli import main

pytestmark = [pytest.mark.peers, pytest.mark.slow]

SIGNAL = mapss_signal(n_slices=3)
#: Study UIDs end in these; the analysis decides by some of them.
EXAMS = {
    1: "measured",
    2: "refused",
    3: "bug",
    4: "two patients",
    5: "incomplete",
    6: "malformed",
    7: "unknown protocol",
}


def write_exam(folder: Path, number: int, canaries: Canaries) -> list[Path]:
    """The files of one exam; their names are canaries too."""
    name, building = EXAMS[number], folder / f"building-{number}"
    building.mkdir()
    uids = {
        "StudyInstanceUID": f"1.2.77.{number}",
        "SeriesInstanceUID": f"1.2.77.{number}.1",
        "FrameOfReferenceUID": f"1.2.77.{number}.9",
    }
    marks = identity(canaries, name)
    if name == "unknown protocol":
        marks["SeriesDescription"] = f"{marks['SeriesDescription']}".replace("MAPSS T1rho T2", "Some odd scan of")
    paths = write_mapss(building, SIGNAL, **uids, **marks)
    if name == "incomplete":
        paths = paths[2:]
    other = canaries.next("two patients: PatientID of the other")
    marked = []
    nested = pydicom.Dataset()
    nest(nested, canaries, name)
    malformed = pydicom.Dataset()
    malform(malformed, canaries, name)
    for index, path in enumerate(paths):
        image = pydicom.dcmread(path)
        image.SOPInstanceUID = f"1.2.77.{number}.1.{index + 1}"
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.update(nested)
        if name == "two patients" and index % 2:
            image.PatientID = other
        if name == "malformed":
            image._dict.update(malformed._dict)
        marked.append(folder / f"{list(canaries.placed)[index]}-{number}-{index}.dcm")
        image.save_as(marked[-1], enforce_file_format=True)
    shutil.rmtree(building)
    return marked


def write_unreadable(folder: Path, whole: Path, canaries: Canaries) -> list[Path]:
    """Objects whose needed elements hold what they cannot hold."""
    paths = []
    for number, keyword in enumerate(("EchoTime", "ImagePositionPatient", "Rows", "SpecificCharacterSet"), start=1):
        image = pydicom.dcmread(whole)
        image.StudyInstanceUID, image.SOPInstanceUID = f"1.2.78.{number}", f"1.2.78.{number}.1"
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        malform(image, canaries, f"unreadable {number}", (keyword,))
        paths.append(folder / f"unreadable-{number}.dcm")
        with warnings.catch_warnings(action="ignore"):  # pydicom warns of what it writes
            image.save_as(paths[-1], enforce_file_format=True)
    return paths


def send_broken(node: Node, whole: Path, canaries: Canaries) -> list[int]:
    """Data sets that are cut short, no DICOM, of another name than announced, or of a study that is no UID."""
    image = pydicom.dcmread(whole)
    with pydicom.filebase.DicomBytesIO() as stream:
        stream.is_little_endian, stream.is_implicit_VR = True, False
        pydicom.filewriter.write_dataset(stream, image)
        data = stream.getvalue()
    study = str(image.StudyInstanceUID).encode()
    spelled = canaries.next("broken: StudyInstanceUID").encode()[: len(study)].ljust(len(study), b"X")
    canaries.placed[spelled.decode()] = "broken: StudyInstanceUID"
    contents = (
        data[:-20],
        b"no DICOM, a letter about " + canaries.next("broken: text").encode(),
        data.replace(image.SOPInstanceUID.encode(), image.SOPInstanceUID.encode()[:-1] + b"9"),
        data.replace(study, spelled),
    )
    meta = image.file_meta
    meta.MediaStorageSOPInstanceUID = "1.2.79.1"
    ae = AE("SCANNER")
    ae.add_requested_context(image.SOPClassUID, meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", node.port, ae_title="DISCNODE")
    assert association.is_established
    answers = []
    for content in contents:
        path = node.folder / "object"
        path.write_bytes(b"\0" * 128 + b"DICM" + encode_file_meta(meta) + content)
        answers.append(int(association.send_c_store(path).Status))
    association.release()
    return answers


def everything_shown(node: Node, web_port: int, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Log, API, command line, process list, database and file names, by place."""
    shown = {"log": node.log}
    base = f"http://127.0.0.1:{web_port}"
    with httpx.Client(base_url=base, timeout=30) as client:
        paths = list(client.get("/openapi.json").json()["paths"])
        ids = {"/api/quarantine/{item_id}": "/api/quarantine", "/api/jobs/{job_id}": "/api/jobs"}
        for path in (*paths, "/openapi.json", "/metrics", "/nowhere", "/api/jobs/99999999999"):
            if path in ids:
                for one in client.get(ids[path]).json():
                    shown[f"GET {path} {one['id']}"] = client.get(f"{ids[path]}/{one['id']}").text
            elif "{" not in path:
                answer = client.get(path)
                shown[f"GET {path}"] = answer.text + str(answer.headers)
    for words in (
        ["exams", "list"],
        ["jobs", "list"],
        ["quarantine", "list"],
        ["quarantine", "list", "--json"],
        ["deliveries", "list"],
    ):
        capsys.readouterr()
        assert main([*words, "--config", str(node.config)]) == 0
        shown[" ".join(words)] = "".join(capsys.readouterr())
    for job in node.jobs:
        assert main(["jobs", "show", str(job.id), "--config", str(node.config)]) == 0
        shown[f"jobs show {job.id}"] = "".join(capsys.readouterr())
    processes = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
    shown["process list"] = "\n".join(" ".join(one.cmdline()) for one in processes)
    storage = node.settings.storage_dir
    shown["file names"] = "\n".join(str(path.relative_to(storage)) for path in storage.rglob("*"))
    for path in storage.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".csv", ".html", ".txt", ".jsonl", ".log", ".xml"):
            shown[f"file {path.relative_to(storage)}"] = path.read_text()
    shown.update(database_texts(storage / "discnode.sqlite"))
    return shown


def events_of(hook: Hook) -> list[str]:
    """The kinds of what was told so far."""
    return [event["event"] for _, body in list(hook.got) for event in body["events"]]


def database_texts(path: Path) -> Iterator[tuple[str, str]]:
    """Each column of each table."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            rows = connection.execute(f"SELECT * FROM {table}")
            names = [column[0] for column in rows.description]
            for name, values in zip(names, zip(*rows.fetchall(), strict=True), strict=False):
                yield f"column {table}.{name}", "\n".join(map(str, values))
    connection.close()


def test_no_identity_is_found_outside_the_objects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    need("storescp")
    hook = Hook()
    request.addfinalizer(hook.close)
    canaries, files = Canaries(seed=200), tmp_path / "files"
    files.mkdir()
    exams = {number: write_exam(files, number, canaries) for number in EXAMS}
    unreadable = write_unreadable(files, exams[1][0], canaries)
    web = free_port()
    away = {"name": "away", "ae_title": "AWAY", "host": "127.0.0.1", "port": free_port()}
    with Storescp(tmp_path / "archive") as archive:
        settings: dict[str, Any] = {
            "destinations": [destination("archive", archive), away],
            "web": {"port": web},
            "jobs": {"lease_s": 5, "attempts": 1},
            "notifications": {
                "webhooks": [{"name": "hook", "url": hook.url}],
                "group_s": 0.0,
                "destination_failing_s": 1.0,
            },
        }
        with Node(tmp_path, "canary_analysis:analyse", **settings) as node:
            peer = Peer("127.0.0.1", node.port, "DISCNODE", "SCANNER")
            for paths in (*exams.values(), unreadable):
                send_files(paths, peer)
            answers = send_broken(node, exams[1][0], canaries)
            assert all(status != 0 for status in answers)

            def is_settled() -> bool:
                states = {job.study_uid[-1]: str(job.state) for job in node.jobs}
                held = set(node.cases)
                return (
                    states.get("1") == states.get("2") == "done"
                    and states.get("3") == "failed"
                    and {"IDENTITY_CONFLICT", "SERIES_INCOMPLETE", "UNREADABLE", "PROTOCOL_UNKNOWN"} <= held
                    and len(archive.files) == 4
                    and "not sent" in node.log
                )

            wait_until(is_settled, "results, refusals, errors and cases", 90)
            wanted = {Event.JOB_PARKED, Event.EXAM_HELD, Event.DESTINATION_FAILING, Event.DEGRADED}
            wait_until(lambda: wanted <= set(events_of(hook)), "notifications of each kind", 60)
            shown = everything_shown(node, web, capsys)
            node.stop()
            shown["log"] = node.log
            shown["notifications"] = str(hook.got)
    assert 'discnode_quarantine_held{code="IDENTITY_CONFLICT"} 1.0' in shown["GET /metrics"]
    assert "IDENTITY_CONFLICT" in shown["notifications"]
    assert len(canaries.placed) >= 200
    assert len(shown) > 60
    # A control: the objects themselves hold them, and are found with the same means.
    held = b"".join(path.read_bytes() for path in (node.settings.storage_dir / "inbox").rglob("*") if path.is_file())
    assert len(canaries.found_in(held.decode("latin-1"))) >= 200
    # The header as the assembly needs it: the site's name of the series stands in it, and is shown without names.
    for header in (pydicom.dcmread(paths[0], stop_before_pixels=True) for paths in exams.values()):
        for text in (header.SeriesDescription, header.ProtocolName):
            shown["column instance.facts"] = shown["column instance.facts"].replace(text, "")
    leaks = {place: found for place, text in shown.items() if (found := canaries.found_in(text))}
    assert leaks == {}
