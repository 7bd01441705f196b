"""Exports of a trial: every value and every reason, in files that others can read; no identity in any of them."""

import csv
import gzip
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nibabel
import numpy as np
import pyarrow.parquet
import pydicom
import pytest
import yaml
from canaries import Canaries
from sqlalchemy import select, update
from synthetic_subject import DAY_ZERO, NUCLEUS_MS, Site, synthetic_site

from config.sections import SettingsError
from dicom_io.result_reader import read_native_maps
from processing.results import Level, Quantity
from service import trial_tables as tables
from service.cli import main
from service.database import open_database
from service.states import VisitState
from service.trials.exports.bids import unique_labels
from service.trials.exports.columns import TIDY, VISITS, Column, codebook
from service.trials.exports.sdtm import study_day, write_sdtm
from service.trials.exports.tables import ExportSubject, Shown, tidy_rows, visit_rows
from service.trials.exports.trial_export import Exported, Format, export_trial
from service.trials.phantoms import PhantomState

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
VISIT_NAMES = ["BL", "M3", "M6", "unscheduled", "M12"]


def export(site: Site, out: Path, *formats: Format) -> Exported:
    return export_trial(site.database, site.settings, "EXAMPLE-01", out, formats, by="me", now=NOW)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    one = synthetic_site(tmp_path_factory.mktemp("trial"))
    yield one
    one.database.close()


@pytest.fixture(scope="module")
def out(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "out"
    done = export(site, folder, Format.ARCHIVE)
    assert (done.n_subjects, done.notes) == (1, ())
    return folder


def test_missing_is_a_row_with_a_reason_never_an_absent_row(out: Path) -> None:
    rows = table(out / "tidy" / "tidy.csv")
    assert len(rows) == 5 * 5 * 4 * 2  # visits, levels, regions, quantities
    assert list(dict.fromkeys(row["visit"] for row in rows)) == VISIT_NAMES
    for row in rows:
        assert (row["value_ms"] != "") == (row["status"] == "MEASURED") == (row["reason"] == "")
    assert {row["status"] for row in rows if row["visit"] == "M6"} == {"NO_SCAN"}
    fused = {row["visit"]: row["status"] for row in rows if row["level"] == "L5S1"}
    assert fused == {
        "BL": "MEASURED",
        "M3": "MEASURED",
        "M6": "NO_SCAN",
        "unscheduled": "MEASURED",
        "M12": "NOT_EVALUABLE",
    }


def test_values_changes_and_days_are_those_of_the_history(site: Site, out: Path) -> None:
    rows = table(out / "tidy" / "tidy.csv")
    history = site.history()
    cells = {(row["visit"], row["level"], row["region"], row["quantity"]): row for row in rows}
    for cell, observations in history.observations.items():
        for one in observations:
            row = cells[one.visit, cell.level.name, cell.region.value, cell.quantity.value]
            if one.value_ms is not None:
                assert float(row["value_ms"]) == pytest.approx(one.value_ms, abs=1e-4)
    treated = cells["M12", "L4L5", "nucleus", "T2"]
    baseline = cells["BL", "L4L5", "nucleus", "T2"]
    assert float(treated["value_ms"]) / float(baseline["value_ms"]) == pytest.approx(1.38, abs=0.01)
    assert treated["verdict"] == "increase beyond measurement error"
    assert [row["day"] for row in table(out / "tidy" / "visits.csv")] == ["0", "94", "", "210", "361"]


def test_primary_cells_of_the_treated_level_are_withheld(site: Site, out: Path, tmp_path: Path) -> None:
    rows = table(out / "tidy" / "tidy.csv")
    withheld = [row for row in rows if row["is_primary"] == ""]
    assert {(row["visit"], row["region"], row["quantity"]) for row in withheld} == {("M12", "nucleus", "T2")}
    assert len(withheld) == 5  # of all levels alike: nothing tells which one it is
    assert {row["is_primary"] for row in rows} == {"no", ""}
    assert "treated_level" not in rows[0]
    with site.database.write() as connection:
        connection.execute(update(tables.trial).values(unblinded_at=NOW))
    try:
        export(site, tmp_path / "open", Format.TIDY)
    finally:
        with site.database.write() as connection:
            connection.execute(update(tables.trial).values(unblinded_at=None))
    rows = table(tmp_path / "open" / "tidy" / "tidy.csv")
    assert [row["level"] for row in rows if row["is_primary"] == "yes"] == ["L4L5"]
    assert {row["treated_level"] for row in rows} == {"L4L5"}


def test_every_column_stands_in_the_codebook_with_what_it_may_hold(out: Path) -> None:
    book = {(row["table"], row["column"]): row for row in table(out / "codebook.csv")}
    for name in ("tidy", "visits"):
        rows = table(out / "tidy" / f"{name}.csv")
        assert list(rows[0]) == [column for of, column in book if of == name]
        for column in rows[0]:
            entry = book[name, column]
            assert all((entry["meaning"], entry["allowed"], entry["source"], entry["kind"]))
            values = {row[column] for row in rows} - {""}
            if entry["kind"] in ("number", "whole number"):
                assert all(re.fullmatch(r"-?\d+(\.\d+)?", value) for value in values), column
            if column in ("status", "region", "quantity", "level", "verdict", "is_primary"):
                assert values <= set(entry["allowed"].split("; ")), column


def test_parquet_holds_the_same_tables_with_types(out: Path) -> None:
    for name, columns in (("tidy", TIDY), ("visits", VISITS)):
        read = pyarrow.parquet.read_table(out / "parquet" / f"{name}.parquet")
        rows = table(out / "tidy" / f"{name}.csv")
        assert read.column_names == [column.name for column in columns]
        assert read.num_rows == len(rows)
        for record, row in zip(read.to_pylist(), rows, strict=True):
            for column in columns:
                value, text = record[column.name], row[column.name]
                if column.kind == "yes or no":
                    assert text == {True: "yes", False: "no", None: ""}[value]
                elif value is None or column.kind == "text":
                    assert text == (value or "")
                else:
                    assert float(text) == pytest.approx(value, rel=1e-9)
    field = pyarrow.parquet.read_schema(out / "parquet" / "tidy.parquet").field("value_ms")
    assert field.metadata[b"unit"] == b"ms"


def test_the_sdtm_draft_says_what_was_not_done_and_why(out: Path) -> None:
    findings, procedures = table(out / "sdtm" / "mk.csv"), table(out / "sdtm" / "pr.csv")
    assert "DRAFT" in (out / "sdtm" / "DRAFT.txt").read_text()
    assert len(findings) == 200
    for row in findings:
        assert (row["MKORRES"] == "") == (row["MKSTAT"] == "NOT DONE") == (row["MKREASND"] != "")
        assert row["MKORRESU"] == ("ms" if row["MKORRES"] else "")
        assert (row["DOMAIN"], len(row["MKTESTCD"]) <= 8, len(row["MKTEST"]) <= 40) == ("MK", True, True)
    assert [int(row["MKSEQ"]) for row in findings] == list(range(1, 201))
    reasons = {row["MKREASND"] for row in findings if row["VISIT"] == "M12"} - {""}
    assert reasons == {"NON-EVALUABLE IMAGE"}
    assert {row["MKREASND"] for row in findings if row["VISIT"] == "M6"} == {"NO SCAN OF THIS VISIT HAS COME"}
    assert [(row["VISIT"], row["VISITNUM"], row["PRSTAT"]) for row in procedures] == [
        ("BL", "1", ""),
        ("M3", "2", ""),
        ("M6", "3", "NOT DONE"),
        ("UNSCHEDULED", "3.1", ""),
        ("M12", "4", ""),
    ]
    assert [row["PRSTDY"] for row in procedures] == ["1", "95", "", "211", "362"]
    devices = {(row["SPDEVID"], row["DIPARMCD"]): row["DIVAL"] for row in table(out / "sdtm" / "di.csv")}
    assert {devices["MR01", "SERNUM"], devices["MR02", "SERNUM"]} == {"0000301234", "0000309999"}


def test_a_further_scan_that_is_held_lends_a_visit_neither_device_nor_phantom(site: Site, tmp_path: Path) -> None:
    history = site.history()
    counting = next(one for one in history.visits if one.name == "M3")
    assert counting.acquisition is not None
    elsewhere = replace(counting.acquisition, device_serial="another")
    held = replace(counting, state=VisitState.HELD, acquisition=elsewhere, code="IDENTITY_CONFLICT")
    subject = ExportSubject(
        replace(history, set_aside=(held,)), {"M3": PhantomState(None, None, holds=False, deviation=None, text="")}
    )
    rows = visit_rows([subject], Shown())
    assert [(row["status"], row["phantom"]) for row in rows if row["visit"] == "M3"] == [
        ("MEASURED", "none"),
        ("HELD", ""),
    ]
    write_sdtm(tmp_path / "sdtm", tidy_rows([subject], Shown()), rows, "BL")
    devices = {
        row["SPDEVID"]: row["DIVAL"] for row in table(tmp_path / "sdtm" / "di.csv") if row["DIPARMCD"] == "SERNUM"
    }
    measured_with = {devices[row["SPDEVID"]] for row in table(tmp_path / "sdtm" / "mk.csv") if row["VISIT"] == "M3"}
    assert measured_with == {counting.acquisition.device_serial}


@pytest.mark.parametrize(("day", "study"), [(0, 1), (10, 11), (-1, -1), (None, None)])
def test_study_days_have_no_day_zero(day: int | None, study: int | None) -> None:
    assert study_day(day) == study


def test_bids_names_units_and_geometry(site: Site, out: Path) -> None:
    """By hand what the validator asks of a derivative: names, json, units, a sidecar for each map."""
    root = out / "bids"
    description = json.loads((root / "dataset_description.json").read_text())
    assert (description["DatasetType"], description["BIDSVersion"]) == ("derivative", "1.9.0")
    assert description["GeneratedBy"][0]["Name"] == "discnode"
    assert (root / "participants.tsv").read_text() == "participant_id\tsite\nsub-01007\t01\n"
    allowed = re.compile(
        r"sub-[A-Za-z0-9]+/ses-[A-Za-z0-9]+/anat/sub-[A-Za-z0-9]+_ses-[A-Za-z0-9]+"
        r"_((T1rho|T2map)\.(nii\.gz|json)|desc-discs_dseg\.(nii\.gz|json|tsv))"
    )
    files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    inside = [name for name in files if name.startswith("sub-")]
    assert len(inside) == 4 * 7
    for name in inside:
        assert allowed.fullmatch(name), name
        sub, ses = name.split("/")[:2]
        assert name.split("/")[3].startswith(f"{sub}_{ses}_")
    visit = next(one for one in site.history().visits if one.name == "BL")
    assert visit.folder is not None
    maps = read_native_maps(visit.folder)
    for quantity, suffix in ((Quantity.T1RHO, "T1rho"), (Quantity.T2, "T2map")):
        stem = root / "sub-01007" / "ses-BL" / "anat" / f"sub-01007_ses-BL_{suffix}"
        image = nibabel.load(f"{stem}.nii.gz")
        values = np.asarray(image.dataobj)
        assert np.array_equal(values, maps[quantity].time_ms / np.float32(1000), equal_nan=True)
        assert 0.005 < np.nanmedian(values) < 0.3  # seconds
        assert np.allclose(np.diag([-1, -1, 1, 1]) @ maps[quantity].affine, image.affine, atol=1e-4)
        sidecar = json.loads(stem.with_name(f"{stem.name}.json").read_text())
        assert sidecar["Units"] == "s"
        times = sidecar["SpinLockTime" if quantity is Quantity.T1RHO else "T2PreparationTime"]
        assert max(times) < 0.1  # seconds, too
    discs = nibabel.load(root / "sub-01007/ses-BL/anat/sub-01007_ses-BL_desc-discs_dseg.nii.gz")
    inside_discs = np.asarray(discs.dataobj) > 0
    fitted = np.isfinite(maps[Quantity.T2].time_ms)
    assert inside_discs.shape == fitted.shape
    assert inside_discs[fitted].mean() > 0.99


def test_two_subjects_must_not_share_a_bids_label() -> None:
    assert unique_labels(["01-007", "01-008"], "subjects") == {"01-007": "01007", "01-008": "01008"}
    with pytest.raises(SettingsError, match="01-007, 010-07"):
        unique_labels(["01-007", "010-07"], "subjects")


def test_the_manifest_lists_every_file_with_its_hash(out: Path) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["data_cut"] == "2031-05-06T07:08:09+00:00"
    assert manifest["made_with"][0]["visits"] == 4
    listed = {entry["path"]: entry for entry in manifest["files"]}
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert there - set(listed) == {"manifest.json", "SHA256SUMS"}
    for name, entry in listed.items():
        content = (out / name).read_bytes()
        assert (entry["size_bytes"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    sums = dict(reversed(line.split("  ")) for line in (out / "SHA256SUMS").read_text().splitlines())
    assert sums["manifest.json"] == hashlib.sha256((out / "manifest.json").read_bytes()).hexdigest()
    assert set(sums) == set(listed) | {"manifest.json"}


def test_the_same_record_gives_the_same_bytes(site: Site, out: Path, tmp_path: Path) -> None:
    export(site, tmp_path / "again", Format.ARCHIVE)
    for path in sorted(one for one in out.rglob("*") if one.is_file()):
        name = path.relative_to(out)
        assert (tmp_path / "again" / name).read_bytes() == path.read_bytes(), name


def test_nothing_is_written_over_an_export(site: Site, out: Path) -> None:
    with pytest.raises(SettingsError, match="not empty"):
        export(site, out, Format.TIDY)
    with pytest.raises(LookupError):
        export_trial(site.database, site.settings, "OTHER", out.parent / "x", [Format.TIDY], by="me", now=NOW)
    assert not (out.parent / "x").exists()


def test_a_column_that_speaks_of_an_arm_is_refused() -> None:
    bad = Column("treatment_arm", "text", "", "m", "a", "s")
    with pytest.raises(SettingsError, match="arm"):
        codebook({"tidy": (*TIDY, bad)})


def _everything(folder: Path) -> Iterator[tuple[str, str]]:
    """Names and contents of all files, unpacked where they are packed."""
    for path in sorted(folder.rglob("*")):
        yield f"name of {path.relative_to(folder)}", path.name
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".gz":
                content = gzip.decompress(content)
            elif path.suffix == ".parquet":
                content += str(pyarrow.parquet.read_table(path).to_pylist()).encode()
            yield str(path.relative_to(folder)), content.decode("latin-1")


def _copied(site: Site, folder: Path) -> Site:
    """The same node in another folder."""
    shutil.copytree(site.settings.storage_dir, folder)
    settings = site.settings.model_copy(update={"storage_dir": folder})
    return Site(settings, open_database(settings), site.plan, site.subject_id)


def test_two_hundred_canaries_and_no_date_leave(site: Site, tmp_path: Path) -> None:
    """In headers of all objects, in words of persons, in UIDs and details; none is in any file of an export."""
    site = _copied(site, tmp_path / "site")
    canaries = Canaries(11)
    results = sorted(site.settings.storage_dir.rglob("v1/result.json"))
    for path in results:
        content = json.loads(path.read_text())
        content["reasons"].append({"code": "MOTION", "detail": canaries.next("detail of a reason")})
        content["correction"] = {
            "editor": canaries.next("editor"),
            "tool": canaries.next("tool"),
            "sop_instance_uid": "1.2.3.98765.4",
            "sha256": "00",
            "automatic_dice": {},
            "removed": [],
            "automatic_refusal": None,
        }
        content["versions"]["correction"] = f"discs of {canaries.next('version')}"
        content["inputs"][0]["series_uid"] = "1.2.3.98765.5"
        path.write_text(json.dumps(content))
        for dicom in sorted(path.parent.rglob("*.dcm")):
            if len(canaries.placed) > 230 and dicom.name not in ("t1rho.dcm", "t2.dcm", "seg.dcm"):
                continue
            dataset = pydicom.dcmread(dicom)
            for keyword in ("PatientName", "PatientID", "AccessionNumber", "StudyDescription", "OperatorsName"):
                setattr(dataset, keyword, canaries.next(f"{dicom.name}: {keyword}", "LO"))
            dataset.save_as(dicom)
    with site.database.write() as connection:
        values = {"detail": canaries.next("detail of a visit"), "assigned_by": canaries.next("who assigned")}
        connection.execute(update(tables.visit).values(**values))
        said = {"reason": canaries.next("reason of a person"), "noted_by": canaries.next("who noted")}
        connection.execute(update(tables.non_evaluable).values(**said))
        connection.execute(update(tables.subject).values(levels_confirmed_by=canaries.next("who confirmed")))
        rows = connection.execute(select(tables.visit.c.id, tables.visit.c.deviations)).all()
        for row in rows:
            worded = [dict(one, text=canaries.next("deviation"), baseline=canaries.next("b")) for one in row.deviations]
            connection.execute(update(tables.visit).where(tables.visit.c.id == row.id).values(deviations=worded))
    assert len(canaries.placed) >= 200
    export(site, tmp_path / "out", Format.ARCHIVE)
    texts = dict(_everything(tmp_path / "out"))
    assert len(texts) > 40
    leaks = {name: canaries.found_in(text) for name, text in texts.items() if canaries.found_in(text)}
    assert leaks == {}
    days = [DAY_ZERO + timedelta(days=day) for day in (0, 94, 210, 361)]
    forbidden = [form for day in days for form in (day.isoformat(), f"{day:%Y%m%d}", f"{day:%d.%m.%Y}")]
    forbidden += ["98765", "P-4711", "Canary", "1.2.826.0.1", str(tmp_path)]
    for name, text in texts.items():
        assert [one for one in forbidden if one in text] == [], name
    site.database.close()


def test_dates_only_where_the_plan_says_so(tmp_path: Path, site: Site) -> None:
    with site.database.read() as connection:
        text = connection.execute(select(tables.trial.c.plan)).scalar_one()
    with site.database.write() as connection:
        connection.execute(update(tables.trial).values(plan=text + "exports: {real_dates: true}\n"))
    try:
        export(site, tmp_path / "dated", Format.TIDY)
    finally:
        with site.database.write() as connection:
            connection.execute(update(tables.trial).values(plan=text))
    rows = table(tmp_path / "dated" / "tidy" / "visits.csv")
    assert [row["scan_date"] for row in rows] == ["2026-01-12", "2026-04-16", "", "2026-08-10", "2027-01-08"]
    assert ("visits", "scan_date") in {
        (row["table"], row["column"]) for row in table(tmp_path / "dated" / "codebook.csv")
    }


def test_the_plan_of_an_archive_tells_no_folder_of_the_node(tmp_path: Path, site: Site) -> None:
    with site.database.read() as connection:
        text, file = connection.execute(select(tables.trial.c.plan, tables.trial.c.file)).one()
    own = Path(file).parent / "own.yml"
    entry = {"quantity": "T2", "regions": ["nucleus"], "source": "own test-retest", "borrowed": False}
    entry["within_cv"] = 0.05
    own.write_text(yaml.safe_dump({"profiles": [{"name": "own", "entries": [entry]}]}))
    plan = yaml.safe_load(text)
    plan["change"] = plan.get("change", {}) | {"precision": own.name}
    with site.database.write() as connection:
        connection.execute(update(tables.trial).values(plan=yaml.safe_dump(plan)))
    try:
        export(site, tmp_path / "out", Format.ARCHIVE)
    finally:
        own.unlink()
        with site.database.write() as connection:
            connection.execute(update(tables.trial).values(plan=text))
    told = (tmp_path / "out" / "archive" / "plan.json").read_text()
    assert json.loads(told)["change"]["precision"] == "own.yml"
    assert str(own.parent) not in told


def test_the_command_exports_and_is_audited(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "node.yaml"
    config.write_text(f"storage_dir: {site.settings.storage_dir}\ntrials_dir: {site.settings.trials_dir}\n")
    command = ["trial", "export", "--config", str(config), "--trial", "EXAMPLE-01", "--out", str(tmp_path / "out")]
    assert main([*command, "--format", "tidy", "sdtm", "--by", "statistician"]) == 0
    assert "1 subjects" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("SHA256SUMS", "codebook.csv", "manifest.json", "sdtm", "tidy"),
    ]
    assert main(command) == 2
    assert "not empty" in capsys.readouterr().err
    with site.database.read() as connection:
        from service.tables import audit_queue

        events = list(connection.execute(select(audit_queue.c.event)).scalars())
    assert any("trial EXAMPLE-01 exported: sdtm, tidy; 1 subjects" in event for event in events)


def test_the_baseline_nuclei_are_those_of_the_synthetic_subject(out: Path) -> None:
    """The made-up truth reaches the file: common voxels change a mean by a little only."""
    rows = table(out / "tidy" / "tidy.csv")
    for row in rows:
        if (row["visit"], row["region"]) == ("BL", "nucleus"):
            truth = NUCLEUS_MS[Quantity(row["quantity"])][Level[row["level"]]]
            assert float(row["value_ms"]) == pytest.approx(truth, rel=0.02)
