"""Destinations that take de-identified copies get nothing else: no canary, no date, no name of a file."""

import dataclasses
import shutil
import zlib
from collections.abc import Iterator
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pypdf
import pytest
from canaries import Canaries, identity, nest
from outbox_desk import scp_destination
from peers import Orthanc, Storescp, need
from phantom_result import measured_phantom
from records import open_database, settings_in
from tiny_analysis import analyse as tiny_analyse
from trial_site import NOW, Scan, Site

from config.deidentification import read_key, write_new_key
from config.settings import ObjectKind, Settings
from dicom_io.pseudonyms import Pseudonyms
from dicom_io.volume_reader import find_dicom_files, read_exam
from processing.results import Correction, Level, MaskOrigin
from service import database as db
from service import jobs, release
from service import trial_tables as trials
from service.delivery import deliver_due, list_deliveries
from service.exam_files import read_exam_files
from service.pipeline import assemble
from service.reports import stored_document
from service.reports.document import Column, Document, Flag, Flags, Page, Row, Table
from service.result_files import write_result
from service.signatures import Signing
from service.states import DeliveryState
from service.trials import deidentified, people
from service.trials.deidentified import make_next_copies
from service.worker import run_job

EXAM_DAY, MADE_ON = "2026-01-12", "2026-03-14"


@dataclasses.dataclass(frozen=True)
class Measured:
    """A result folder of an exam whose headers are full of canaries."""

    folder: Path
    canaries: Canaries


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder, canaries = tmp_path_factory.mktemp("measured"), Canaries(seed=11)
    _, _, result = measured_phantom(folder / "plain", n_slices=3)
    marked = folder / canaries.next("folder")
    marked.mkdir()
    marks = identity(canaries, "exam")
    for number, path in enumerate(find_dicom_files([folder / "plain"])):
        image = pydicom.dcmread(path)
        series = image.SeriesDescription
        for keyword, value in marks.items():
            if keyword != "ProtocolName":
                setattr(image, keyword, value)
        image.SeriesDescription = f"{series} {str(marks['PatientName']).partition('^')[0]}"
        nest(image, canaries, f"image {number}")
        image.save_as(marked / f"{canaries.next('file')}.dcm", enforce_file_format=True)
    images = read_exam(assemble(read_exam_files([marked]), Settings()))
    origin = MaskOrigin("cd" * 32, "1.2.840.99999.1234567890.5", canaries.next("editor", "PN"), "3D Slicer")
    correction = Correction(origin, {Level.L4L5: 0.97}, (), None)
    result = dataclasses.replace(result, correction=correction)
    write_result(result, images, folder / "result", keep_document=True)
    return Measured(folder / "result", canaries)


def open_node(folder: Path, *destinations: Any, **changes: Any) -> Site:
    """A node that follows one trial, whose results go to these destinations."""
    (folder / "trials").mkdir()
    content = [one.model_dump() for one in destinations]
    settings = settings_in(folder, trials_dir=folder / "trials", destinations=content, delivery={"timeout_s": 5.0})
    site = Site(settings, open_database(settings))
    plan = {"destinations": [one.name for one in destinations], "deidentification": {"key_file": "trial.key"}}
    site.write_plan(**plan | {"release": "automatic"} | changes)
    return site


@pytest.fixture
def closing() -> Iterator[list[Site]]:
    sites: list[Site] = []
    yield sites
    for site in sites:
        site.database.close()


def take_visit(site: Site, measured: Measured, scan: Scan) -> int:
    """An exam of the trial is measured, with the result that lies in the folder."""
    exam_id = site.add(scan)
    job_id = site.measure(exam_id)
    job = next(one for one in jobs.list_jobs(site.database) if one.id == job_id)
    shutil.copytree(measured.folder, site.settings.storage_dir / job.result_folder, dirs_exist_ok=True)
    site.sweep()
    assert site.visits()[exam_id].state == "measured"
    return job_id


def everything_in(pdf: bytes) -> str:
    """Text, metadata and every stream of a PDF, decompressed."""
    reader = pypdf.PdfReader(BytesIO(pdf))
    parts = [str(reader.metadata), *(page.extract_text() for page in reader.pages), pdf.decode("latin-1")]
    for number in range(1, len(reader.xref[0]) + 1 if 0 in reader.xref else 1):
        one = reader.get_object(number)
        if isinstance(one, pypdf.generic.StreamObject):
            try:
                parts.append(one.get_data().decode("latin-1"))
            except (NotImplementedError, zlib.error, pypdf.errors.PdfReadError):
                parts.append(one._data.decode("latin-1"))
    return "\n".join(parts)


def texts_of(files: list[bytes]) -> list[str]:
    """The files as text, and what is inside the documents in them."""
    texts = [content.decode("latin-1") for content in files]
    for content in files:
        document = pydicom.dcmread(BytesIO(content)).get("EncapsulatedDocument")
        if document:
            texts.append(everything_in(bytes(document)))
    return texts


@pytest.mark.peers
@pytest.mark.slow
def test_two_hundred_canaries_and_none_arrives(tmp_path: Path, measured: Measured, closing: list[Site]) -> None:
    need("storescp", "Orthanc")
    with Storescp(tmp_path / "storescp") as scp, Orthanc(tmp_path / "orthanc") as orthanc:
        lab = scp_destination("lab", scp, deidentify=True, objects=tuple(ObjectKind))
        site = open_node(tmp_path, lab, scp_destination("archive", orthanc, deidentify=True))
        closing.append(site)
        write_new_key(tmp_path / "trials" / "trial.key")
        take_visit(site, measured, Scan(visit="BL"))
        assert list_deliveries(site.database) == [], "nothing identified was put down"
        assert make_next_copies(site.database, site.settings, NOW)
        assert not make_next_copies(site.database, site.settings, NOW)
        for destination in site.settings.destinations:
            deliver_due(site.database, destination, site.settings, now=lambda: NOW)
        assert {one.state for one in list_deliveries(site.database)} == {DeliveryState.SENT}
        received = {path.name: path.read_bytes() for path in scp.files}
        n_made = len(list((measured.folder / "dicom").iterdir()))
        assert len(received) == n_made
        kept = orthanc.sop_instance_uids
        assert 0 < len(kept) < n_made
        files = [*received.values(), *(orthanc.file_of(uid) for uid in kept[:5])]
    assert len(measured.canaries.placed) >= 200
    identified = [path.read_bytes() for path in (measured.folder / "dicom").iterdir()]
    assert measured.canaries.found_in(*texts_of(identified)), "a control: the results themselves hold them"
    texts = texts_of(files)
    assert measured.canaries.found_in(*texts, *received) == {}
    for day in (EXAM_DAY, MADE_ON):
        assert not [text for text in texts if day in text or day.replace("-", "") in text]
    headers = [pydicom.dcmread(BytesIO(content)) for content in files]
    assert {(one.PatientID, one.ClinicalTrialTimePointID, one.PatientIdentityRemoved) for one in headers} == {
        ("01-001", "BL", "YES")
    }
    uids = {str(one.SOPInstanceUID) for one in headers}
    original = {str(pydicom.dcmread(BytesIO(one), stop_before_pixels=True).SOPInstanceUID) for one in identified}
    assert not uids & original


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, measured: Measured) -> Iterator[Site]:
    """A node with copies that wait for a destination which is not there."""
    folder = tmp_path_factory.mktemp("made")
    site = open_node(folder, scp_destination("lab", Storescp(folder / "nobody"), deidentify=True))
    write_new_key(folder / "trials" / "trial.key")
    take_visit(site, measured, Scan(visit="BL"))
    assert make_next_copies(site.database, site.settings, NOW)
    yield site
    site.database.close()


def copies_of(site: Site) -> dict[str, bytes]:
    folder = next(site.settings.storage_dir.rglob("deidentified"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_copies_hang_together_and_the_report_says_whose_it_is(made: Site, measured: Measured) -> None:
    copies = [pydicom.dcmread(BytesIO(content)) for content in copies_of(made).values()]
    uids = {one.SOPInstanceUID for one in copies}
    (seg,) = [one for one in copies if one.Modality == "SEG"]
    reports = [one for one in copies if one.Modality == "SR"]
    referenced = {item.ReferencedSOPInstanceUID for one in reports for item in _items(one, "ReferencedSOPSequence")}
    assert seg.SOPInstanceUID in referenced & uids
    pseudonyms = Pseudonyms(read_key(made.plan_file.parent / "trial.key"), "DISC-1", "01-001")
    plain = [pydicom.dcmread(path) for path in (measured.folder / "dicom").glob("*.dcm")]
    for keyword in ("FloatPixelData", "PixelData"):
        images = {str(one.SOPInstanceUID): one[keyword].value for one in plain if keyword in one}
        assert images
        for uid, pixels in images.items():
            (copy,) = [one for one in copies if pseudonyms.uid(uid) == one.SOPInstanceUID]
            assert copy[keyword].value == pixels, "the same to the last bit"
    for one in copies:
        assert "Research use only" in one.SeriesDescription
    (pdf,) = [one for one in copies if one.Modality == "DOC"]
    text = everything_in(pdf.EncapsulatedDocument)
    assert "01-001, trial DISC-1, site 01, visit BL" in text
    assert pseudonyms.uid("1.2.840.99999.1234567890.5") in text.replace("\n", "")
    assert "1.2.840.99999" not in text
    for day in (EXAM_DAY, MADE_ON):
        assert pseudonyms.shifted(date.fromisoformat(day)).isoformat() in text


def _items(dataset: pydicom.Dataset, keyword: str) -> Iterator[pydicom.Dataset]:
    for element in dataset.iterall():
        if element.keyword == keyword:
            yield from element.value


def test_made_again_they_are_the_same(made: Site) -> None:
    before, job_id = copies_of(made), list_deliveries(made.database)[0].job_id
    (row,) = made.rows(trials.deidentified)
    assert (row.job_id, row.n_objects, row.visit) == (job_id, len(before), "BL")
    with made.database.write() as connection:
        connection.execute(trials.deidentified.delete())
    assert make_next_copies(made.database, made.settings, NOW)
    assert copies_of(made) == before


def test_what_is_not_deidentified_never_goes_there(made: Site) -> None:
    """The last gate: whoever put it down, and wherever the file came from."""
    uid, content = next(iter(copies_of(made).items()))
    one = pydicom.dcmread(BytesIO(content))
    del one.PatientIdentityRemoved
    folder = next(made.settings.storage_dir.rglob("deidentified"))
    one.save_as(folder / uid)
    (destination,) = made.settings.destinations
    deliver_due(made.database, destination, made.settings, now=lambda: NOW)
    (held,) = [one for one in list_deliveries(made.database) if one.state is DeliveryState.HELD]
    assert held.sop_uid == uid.removesuffix(".dcm")
    assert set(held.holds or {}) == {"identified"}


def test_a_worker_puts_nothing_identified_down_for_it(tmp_path: Path, closing: list[Site]) -> None:
    lab, pacs = Storescp(tmp_path / "a"), Storescp(tmp_path / "b", ae_title="PACS")
    site = open_node(tmp_path, scp_destination("lab", lab, deidentify=True), scp_destination("pacs", pacs))
    closing.append(site)
    site.add(Scan(visit="BL"))
    job = jobs.claim(site.database, "w", NOW, 60.0)
    assert job is not None
    run_job(site.database, site.settings, job, tiny_analyse)
    assert {one.destination for one in list_deliveries(site.database)} == {"pacs"}


def test_without_the_key_nothing_goes_and_what_comes_later_waits_for_a_person(
    tmp_path: Path, measured: Measured, closing: list[Site]
) -> None:
    lab = scp_destination("lab", Storescp(tmp_path / "nobody"), deidentify=True)
    site = open_node(tmp_path, lab, release="hold")
    closing.append(site)
    take_visit(site, measured, Scan(visit="BL"))
    assert make_next_copies(site.database, site.settings, NOW)
    (row,) = site.rows(trials.deidentified)
    assert (row.code, row.made_at) == ("REVIEW_REQUIRED", None)
    assert "trial.key" in row.detail
    assert list_deliveries(site.database) == []
    write_new_key(tmp_path / "trials" / "trial.key")
    assert not make_next_copies(site.database, site.settings, NOW + timedelta(minutes=5))
    assert make_next_copies(site.database, site.settings, NOW + timedelta(minutes=11))
    waiting = list_deliveries(site.database)
    assert len(waiting) > 20
    assert {one.state for one in waiting} == {DeliveryState.HELD}, "the plan has a person decide first"


def test_a_result_without_its_document_is_not_sent_without_its_report(
    tmp_path: Path, measured: Measured, closing: list[Site]
) -> None:
    site = open_node(tmp_path, scp_destination("lab", Storescp(tmp_path / "nobody"), deidentify=True))
    closing.append(site)
    write_new_key(tmp_path / "trials" / "trial.key")
    take_visit(site, measured, Scan(visit="BL"))
    next(site.settings.storage_dir.rglob(stored_document.FILE_NAME)).unlink()
    assert make_next_copies(site.database, site.settings, NOW)
    (row,) = site.rows(trials.deidentified)
    assert row.code == "UNSUPPORTED_OBJECT"
    assert list_deliveries(site.database) == []
    assert not list(site.settings.storage_dir.rglob("*deidentified*"))


def test_documents_come_back_from_json(measured: Measured) -> None:
    text = (measured.folder / stored_document.FILE_NAME).read_text()
    document = stored_document.from_json(text)
    assert stored_document.to_json(document) == text
    dense = Table("a", (Column("b"), Column("c", is_text=True)), (Row("d", ("e",), (1, 2, 3)),), "f", is_dense=True)
    every = Document("t", "u", "f", (Page("p", (dense, Flags("h", (Flag("f", ("d",), "a", "C"),)))),))
    assert stored_document.from_json(stored_document.to_json(every)) == every
    assert document.title.startswith("Relaxation times")
    with pytest.raises(ValueError, match="no block"):
        stored_document.from_json(text.replace('"block": "Facts"', '"block": "Fax"'))


def test_copies_wait_for_a_person_where_the_visit_is_to_be_checked(
    tmp_path: Path, measured: Measured, closing: list[Site]
) -> None:
    """What differs from the baseline is a warning for copies too, though the result by itself is fine."""
    lab = scp_destination("lab", Storescp(tmp_path / "nobody"), deidentify=True)
    site = open_node(tmp_path, lab, release="hold_on_warning")
    closing.append(site)
    write_new_key(tmp_path / "trials" / "trial.key")
    take_visit(site, measured, Scan(visit="BL"))
    found = {"what": "scanner", "baseline": "1", "visit": "2", "hard": False, "text": "Another scanner."}
    with site.database.write() as connection:
        connection.execute(trials.visit.update().values(deviations=[found]))
    assert make_next_copies(site.database, site.settings, NOW)
    deliveries = list_deliveries(site.database)
    assert {one.state for one in deliveries} == {DeliveryState.HELD}
    assert {one.held_for for one in deliveries} == {"to be checked: Another scanner."}


def test_copies_that_bear_the_name_of_another_subject_are_never_sent(
    tmp_path: Path, measured: Measured, closing: list[Site]
) -> None:
    site = open_node(tmp_path, scp_destination("lab", Storescp(tmp_path / "nobody"), deidentify=True))
    closing.append(site)
    write_new_key(tmp_path / "trials" / "trial.key")
    job = take_visit(site, measured, Scan(visit="BL"))
    exam = next(iter(site.visits()))
    site.add(Scan("01-002", visit="BL", patient_id="HOSP-2"))
    site.sweep()
    assert make_next_copies(site.database, site.settings, NOW)
    first = {one.sop_uid for one in list_deliveries(site.database)}
    signing = Signing("anna", "test", NOW, "I say whose it is", "the site mixed them up")

    people.assign(site.database, exam, "M3", signing, subject_id="01-002")
    people.accept(site.database, exam, signing)
    assert site.visits()[exam][:3] == ("01-002", "M3", "measured")
    assert {one.state for one in list_deliveries(site.database)} == {DeliveryState.REJECTED}
    assert make_next_copies(site.database, site.settings, NOW)
    names = {str(pydicom.dcmread(BytesIO(one)).ClinicalTrialSubjectID) for one in copies_of(site).values()}
    assert names == {"01-002"}
    assert {one.sop_uid: one.state for one in list_deliveries(site.database)} == dict.fromkeys(
        first, DeliveryState.WAITING
    )
    item = release.get_item(site.database, release.Target("job", job))
    assert item is not None
    assert release.describe(site.database, item)["content_sha256"]  # though the files of the first ones are gone
    with site.database.write() as connection:  # they were taken by the destination
        connection.execute(db.delivery.update().values(state=str(DeliveryState.CONFIRMED), sent_at=NOW))

    people.assign(site.database, exam, "BL", signing, subject_id="01-001")
    assert site.visits()[exam][:3] == ("01-001", "BL", "measured")
    assert make_next_copies(site.database, site.settings, NOW)
    again = list_deliveries(site.database)
    assert {one.state for one in again} == {DeliveryState.HELD}
    assert all("removed there first" in one.held_for for one in again), "an archive may keep what it has of these UIDs"


def test_copies_of_a_visit_that_was_held_while_they_were_made_are_not_put_down(
    tmp_path: Path, measured: Measured, closing: list[Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = open_node(tmp_path, scp_destination("lab", Storescp(tmp_path / "nobody"), deidentify=True))
    closing.append(site)
    write_new_key(tmp_path / "trials" / "trial.key")
    take_visit(site, measured, Scan(visit="BL"))
    exam, make = next(iter(site.visits())), deidentified._make

    def make_and_meanwhile(*arguments: Any) -> Any:
        made = make(*arguments)
        people.set_aside(site.database, exam, Signing("anna", "test", NOW, "It does not count", "another person"))
        return made

    monkeypatch.setattr(deidentified, "_make", make_and_meanwhile)
    assert make_next_copies(site.database, site.settings, NOW)
    assert list_deliveries(site.database) == []
