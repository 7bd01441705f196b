"""A subject's report: its numbers are the truth's, nothing in it un-blinds, every form says the same."""

import csv
import io
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import highdicom
import pydicom
import pytest
import yaml
from peers import need
from pypdf import PdfReader
from sqlalchemy import select, update
from synthetic_subject import ALL, DAY_ZERO, USUAL, Site, mean_ms, synthetic_site

from processing.comparability import compare_acquisitions
from processing.results import Level, Quantity, Region
from processing.visits import NO_SCAN, Cell, ChangeVerdict, Difference
from service import trial_tables
from service.reports.document import Document, Facts, Notice, Picture, Table, Text, Tone
from service.reports.rendering import render
from service.trials.freezing import precision_sha256
from service.trials.history import read_history
from service.trials.report_contents import EarlierVersion, ReportContents, ReportEdition, VisitQuality
from service.trials.report_data import ReportDocument, report_document, schema_text
from service.trials.report_files import write_report
from service.trials.report_inputs import inputs_digest
from service.trials.reporter import ReportSource, contents_of, read_source
from service.trials.subject_report import subject_report

MADE_AT = datetime(2027, 1, 8, 10, 22, tzinfo=UTC)
SCANS = {one.name: one for one in USUAL}
NUCLEUS = Cell(Level.L4L5, Region.NUCLEUS, Quantity.T2)
DATE = re.compile(r"\d{4}-\d{2}-\d{2}|\d{8}")


def edition_of(source: ReportSource, version: int = 1) -> ReportEdition:
    earlier = tuple(EarlierVersion(number, MADE_AT) for number in range(1, version))
    return ReportEdition(version, MADE_AT, source.digest, source.software, earlier)


def contents(site: Site) -> ReportContents:
    source = read_source(site.database, site.settings, site.subject_id)
    return contents_of(source, edition_of(source))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = synthetic_site(tmp_path_factory.mktemp("trial"), blinding={"show_treated_level": True})
    yield made
    made.database.close()


@pytest.fixture(scope="module")
def blinded(site: Site) -> Site:
    """The same subject in a trial whose reports do not tell the treated level."""
    plan = site.plan.model_copy(
        update={"blinding": site.plan.blinding.model_copy(update={"show_treated_level": False})}
    )
    return replace(site, plan=plan)


@pytest.fixture(scope="module")
def shown(site: Site) -> ReportContents:
    return contents(site)


@pytest.fixture(scope="module")
def document(shown: ReportContents) -> Document:
    return subject_report(shown)


@pytest.fixture(scope="module")
def written(shown: ReportContents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(shown, folder)
    return folder


def tables(document: Document) -> list[Table]:
    return [block for page in document.pages for block in page.blocks if isinstance(block, Table)]


def table(document: Document, start: str) -> Table:
    (found,) = [one for one in tables(document) if one.heading.startswith(start)]
    return found


# ---- the history


def test_every_value_is_the_truth_at_every_visit_that_came(site: Site) -> None:
    history = site.history()
    assert history.are_common
    assert [one.name for one in history.visits] == ["BL", "M3", "M6", "unscheduled", "M12"]
    assert len(history.observations) == 5 * 4 * 2
    for cell, observations in history.observations.items():
        for visit, one in zip(history.visits, observations, strict=True):
            if visit.name == "M6" or (visit.name == "M12" and cell.level is Level.L5S1):
                assert one.value_ms is None
            elif cell.region is not Region.WHOLE_DISC:  # whose mean depends on how large the atlas' parts are
                assert one.value_ms == pytest.approx(
                    mean_ms(cell.level, cell.region, cell.quantity, SCANS[visit.name]), rel=1e-5
                )


def test_what_is_not_there_has_a_reason_and_is_never_filled_in(site: Site) -> None:
    history = site.history()
    by_visit = {one.visit: one for one in history.observations[Cell(Level.L5S1, Region.NUCLEUS, Quantity.T2)]}
    assert (by_visit["M6"].value_ms, by_visit["M6"].reason, by_visit["M6"].day) == (None, NO_SCAN, 182)
    assert by_visit["M12"].value_ms is None
    assert "fusion L5/S1" in by_visit["M12"].reason
    verdicts = {one.visit: one.verdict for one in history.changes if one.cell.level is Level.L5S1}
    assert (verdicts["M6"], verdicts["M12"]) == (ChangeVerdict.MISSING, ChangeVerdict.NOT_EVALUABLE)


def test_without_its_maps_the_numbers_of_each_exam_stand_and_it_is_told(tmp_path: Path, site: Site) -> None:
    plan = site.plan.model_copy(update={"change": site.plan.change.model_copy(update={"voxels": "each"})})
    history = read_history(site.database, site.settings, plan, site.subject_row)
    assert not history.are_common
    assert [one.value_ms for one in history.observations[NUCLEUS] if one.value_ms is not None] == pytest.approx(
        [mean_ms(Level.L4L5, Region.NUCLEUS, Quantity.T2, one) for one in USUAL]
    )
    assert history.newest is not None
    assert history.newest.folder is not None
    map_file = history.newest.folder / "dicom" / "t2-atlas.dcm"
    kept = map_file.read_bytes()
    map_file.unlink()
    try:
        gone = site.history()
    finally:
        map_file.write_bytes(kept)
    assert not gone.are_common
    assert any("no longer there" in one for one in gone.warnings)
    assert [one.value_ms for one in gone.observations[NUCLEUS]] == [
        one.value_ms for one in history.observations[NUCLEUS]
    ]


def test_the_treated_level_is_known_only_where_the_plan_or_the_caller_says_so(site: Site, blinded: Site) -> None:
    assert site.history().treated_level is Level.L4L5
    assert [(one.cell, one.visit) for one in site.history().changes if one.is_primary] == [(NUCLEUS, "M12")]
    hidden = blinded.history()
    assert hidden.treated_level is None
    assert not any(one.is_primary for one in hidden.changes)
    assert hidden.assessment.controls == ()
    assert blinded.history(show_treated_level=True).treated_level is Level.L4L5


# ---- what it says


def test_the_primary_cell_stands_first_with_its_limits_and_their_basis(
    document: Document, shown: ReportContents
) -> None:
    primary = table(document, "Declared in advance")
    (change,) = [one for one in shown.table.changes if one.is_primary]
    (row,) = primary.rows
    assert primary in document.pages[0].blocks
    assert row.name == "T2, nucleus, L4/L5"
    assert change.lower_limit_ms is not None
    assert row.cells == (
        *("M12", "66.0", "91.1", "+25.1", "+38.0"),
        f"−{-change.lower_limit_ms:.1f} to +{change.upper_limit_ms:.1f}",
        "increase beyond measurement error",
    )
    assert "borrowed" in primary.note
    (reading,) = [one for one in document.pages[0].blocks if isinstance(one, Notice) and one.title.startswith("How")]
    n = sum(one.verdict.is_judged for one in shown.table.changes)
    assert f"of {n - 1} exploratory" in " ".join(reading.lines)


def with_visit(shown: ReportContents, name: str, **other: Any) -> ReportContents:
    visits = tuple(replace(one, **other) if one.name == name else one for one in shown.history.visits)
    return replace(shown, history=replace(shown.history, visits=visits))


def test_a_primary_cell_that_is_not_judged_tells_why_beside_it(shown: ReportContents) -> None:
    changes = tuple(
        replace(one, verdict=ChangeVerdict.NOT_COMPARABLE, basis="", reasons=("other spin-lock times",))
        if one.is_primary
        else one
        for one in shown.table.changes
    )
    found = subject_report(replace(shown, table=replace(shown.table, changes=changes)))
    primary = table(found, "Declared in advance")
    assert primary.rows[0].cells[-1] == "not comparable"
    assert primary.note == "Not judged: M12: other spin-lock times."


def test_the_precision_is_told_with_the_same_percentages_everywhere(document: Document) -> None:
    """Coefficients of variation, as in the profile: 10.06 % is not 10.0 % here and 10.1 % there."""
    text = " ".join(document.texts())
    assert text.count("10.1 %") >= 2
    assert "10.0 %" not in text


def test_deviations_as_the_node_writes_them_are_marked_and_said_once(shown: ReportContents) -> None:
    baseline = shown.history.baseline.acquisition
    assert baseline is not None
    other = replace(baseline, pixel_spacing_mm=(0.9, 0.9), device_serial="77", t1rho_times_ms=(0.0, 10.0, 40.0, 60.0))
    differs = compare_acquisitions(baseline, other, shown.history.plan.acceptance)
    phantom = Difference("phantom", "", "none", hard=False, widens=False, text="No scan of the phantom.")
    found = subject_report(with_visit(shown, "M12", acquisition=other, differences=(*differs, phantom)))
    cells = {row.name: row.cells[-1] for row in table(found, "Acquisition").rows}
    assert cells["Field of view"] == "≠ 230 × 230 mm"
    assert cells["Serial number"] == "≠ 77"
    assert cells["Spin-lock times (ms)"] == "✕ 0, 10, 40, 60"
    (deviations,) = [
        block.paragraphs
        for page in found.pages
        for block in page.blocks
        if isinstance(block, Text) and block.heading.startswith("Deviations")
    ]
    of_m12 = [line for line in deviations if line.startswith("M12")]
    assert len(of_m12) == len(differs) + 1
    assert all(line.count("judged") + line.count("limits") <= 1 and not line.endswith("..") for line in of_m12)


def test_a_date_without_time_of_day_is_not_midnight(shown: ReportContents) -> None:
    at_midnight = datetime(2026, 4, 16)
    found = with_visit(shown, "M3", scanned_at=at_midnight, acquisition=None)
    assert table(subject_report(found), "Visits").rows[1].cells[1:4] == ("2026-04-16", "94", "–")
    assert report_document(found).visits[1].clock is None


def test_a_precision_edited_after_the_freeze_is_warned_of_and_its_folder_is_not_told(
    site: Site, shown: ReportContents, tmp_path: Path
) -> None:
    own = tmp_path / "own.yaml"
    entry = {
        "quantity": "T2",
        "regions": ["nucleus"],
        "within_cv": 0.05,
        "source": "own test-retest",
        "borrowed": False,
    }
    profiles: list[dict[str, Any]] = [{"name": "own", "entries": [entry]}]
    own.write_text(yaml.safe_dump({"profiles": profiles}))
    plan = site.plan.model_copy(update={"change": site.plan.change.model_copy(update={"precision": str(own)})})
    changed = replace(site, plan=plan)
    freeze = {"versions": {}, "plan_sha256": "", "precision_sha256": precision_sha256(plan)}
    _freeze(site, freeze)
    try:
        before = changed.history()
        entry["within_cv"] = 0.01
        own.write_text(yaml.safe_dump({"profiles": profiles}))
        after = changed.history()
    finally:
        _freeze(site, None)
    assert not any("edited" in one for one in before.warnings)
    assert any("precision was edited after the trial was frozen" in one for one in after.warnings)
    text = " ".join(subject_report(replace(shown, history=after)).texts())
    assert str(tmp_path) not in text


def _freeze(site: Site, freeze: dict[str, Any] | None) -> None:
    with site.database.write() as connection:
        connection.execute(update(trial_tables.trial).values(freeze=freeze))


def test_without_a_day_zero_that_is_to_be_given_it_is_told(site: Site) -> None:
    found = replace(site, plan=site.plan.model_copy(update={"day_zero": "given"}))
    with site.database.read() as connection:
        known = connection.execute(select(trial_tables.subject.c.day_zero)).scalar_one()
    _day_zero(site, None)
    try:
        warnings = found.history().warnings
    finally:
        _day_zero(site, known)
    assert any(one.startswith("Day zero is not known") for one in warnings)


def _day_zero(site: Site, day: date | None) -> None:
    with site.database.write() as connection:
        connection.execute(update(trial_tables.subject).values(day_zero=day))


def test_results_of_other_versions_than_the_baselines_are_warned_of(site: Site) -> None:
    newest = site.history().newest
    assert newest is not None
    assert newest.folder is not None
    path = newest.folder / "result.json"
    kept = path.read_bytes()
    result = json.loads(kept)
    result["versions"] |= {"model_sha256": "c" * 64, "atlas_sha256": "d" * 64}
    path.write_text(json.dumps(result))
    plan = site.plan.model_copy(update={"change": site.plan.change.model_copy(update={"voxels": "each"})})
    try:
        common, each = site.history(), replace(site, plan=plan).history()
    finally:
        path.write_bytes(kept)
    for one in (common, each):
        assert "M12 was measured with other versions than the baseline: weights, atlas." in one.warnings
        assert "another atlas" in one.observations[NUCLEUS][-1].reason
    assert not any("other versions" in one for one in site.history().warnings)


@pytest.mark.parametrize("quantity", [("T2", Quantity.T2), ("T1ρ", Quantity.T1RHO)])
def test_the_tables_hold_every_change_with_its_limits(
    document: Document, shown: ReportContents, quantity: tuple[str, Quantity]
) -> None:
    found = table(document, f"{quantity[0]} in ms")
    changes = {(one.cell, one.visit): one for one in shown.table.changes}
    regions = {"nucleus": Region.NUCLEUS, "whole disc": Region.WHOLE_DISC}
    regions |= {"anterior annulus": Region.ANTERIOR_ANNULUS, "posterior annulus": Region.POSTERIOR_ANNULUS}
    names = {"L1/L2": Level.L1L2, "L2/L3": Level.L2L3, "L3/L4": Level.L3L4, "L4/L5": Level.L4L5, "L5/S1": Level.L5S1}
    assert len(found.rows) == 20
    assert [name for name, _ in found.groups if name] == ["M3, day 94", "unscheduled, day 210", "M12, day 361"]
    for row in found.rows:
        level, _, region = row.name.partition(" ")
        for at, visit in enumerate(("M3", "unscheduled", "M12")):
            one = changes[Cell(names[level], regions[region], quantity[1]), visit]
            value, change, limits = row.cells[1 + 3 * at : 4 + 3 * at]
            if one.delta_ms is None:
                assert (change, limits) == ("n/e", "")
                continue
            assert float(value) == pytest.approx(one.value_ms, abs=0.0501)
            shown_ms = float(change.rstrip("*").rstrip(" ▲▼").replace("−", "-"))
            assert shown_ms == pytest.approx(one.delta_ms, abs=0.0501)
            low, high = (float(each.replace("−", "-")) for each in limits.split())
            assert (low, high) == pytest.approx((one.lower_limit_ms, one.upper_limit_ms), abs=0.0501)
            assert ("▲" in change) == (one.verdict is ChangeVerdict.INCREASE)
            assert ("▼" in change) == (one.verdict is ChangeVerdict.DECREASE)
    assert "No scan: M6." in found.note


def test_visits_windows_deviations_and_what_is_left_out_are_told(document: Document) -> None:
    visits = {row.name: row.cells for row in table(document, "Visits").rows}
    assert visits["M6"] == (
        "days 161 to 203 (2026-06-22 to 2026-08-03)",
        *("–", "–", "–", "–"),
        "no scan; its window is over",
    )
    assert visits["M3"][1:5] == ("2026-04-16", "94", "14:25", "1")
    assert visits["unscheduled"][0] == "not planned"
    equality = {row.name: row.cells for row in table(document, "Acquisition").rows}
    assert equality["Serial number"][-1] == "≠ 0000309999"
    assert equality["Serial number"][0] == "0000301234"
    assert equality["Clock time"] == ("09:10", "≠ 14:25", "09:40", "09:25")
    text = " ".join(document.texts())
    assert "L5/S1 from M12 on: not evaluable, operated on" in text
    assert "M6: no scan; its window is over" in text


def test_words_and_colours_are_neutral(document: Document) -> None:
    text = " ".join(document.texts()).lower()
    for word in ("better", "worse", "improve", "worsen", "benefit", "respon", "success", "deteriorat", "good", "bad "):
        assert word not in text.replace("as good as that holds", "")
    tones = {block.tone for page in document.pages for block in page.blocks if isinstance(block, Notice)}
    assert tones <= {Tone.PLAIN, Tone.CAUTION}


def test_what_a_header_does_not_tell_is_not_known(shown: ReportContents) -> None:
    visits = tuple(
        one if one.acquisition is None else replace(one, acquisition=replace(one.acquisition, receive_coil=""))
        for one in shown.history.visits
    )
    history = replace(shown.history, visits=visits)
    found = subject_report(replace(shown, history=history))
    cells = {row.name: row.cells for row in table(found, "Acquisition").rows}
    assert set(cells["Receive coil"]) == {"not known"}


def test_a_subject_without_a_change_to_judge_still_has_a_report(site: Site, shown: ReportContents) -> None:
    """The baseline alone, and follow-ups without their baseline: both are states of every trial."""
    first = tuple(one if one.name == "BL" else replace(one, state=None, result=None) for one in shown.history.visits)
    observations = {
        cell: tuple(one if one.visit == "BL" else replace(one, value_ms=None, reason=NO_SCAN) for one in observations)
        for cell, observations in shown.history.observations.items()
    }
    history = replace(shown.history, visits=first, observations=observations)
    empty = replace(shown.table, changes=(), slopes=(), controls=())
    made = subject_report(replace(shown, history=history, table=empty))
    assert render(made).pdf.startswith(b"%PDF")
    assert any(isinstance(block, Picture) for block in made.pages[0].blocks)


def test_the_first_page_is_one_sheet_and_tells_the_whole(document: Document) -> None:
    pages = [page.extract_text() for page in PdfReader(io.BytesIO(render(document).pdf)).pages]
    assert sum("Lumbar discs over time" in one for one in pages) == 1
    assert "increase beyond measurement error" in pages[0]
    assert len([block for block in document.pages[0].blocks if isinstance(block, Picture)]) == 2
    assert all("RESEARCH USE ONLY" in one for one in pages)


# ---- one content in all forms


class PageText(HTMLParser):
    """The texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self._hidden = "", False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._hidden = tag in ("style", "title")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._hidden else data


def test_html_and_pdf_hold_every_text(document: Document, written: Path) -> None:
    page = re.sub(r"\s", "", PageText((written / "report.html").read_text()).text)
    sheets = PdfReader(written / "report.pdf").pages
    pdf = re.sub(r"\s", "", "".join(sheet.extract_text() for sheet in sheets))
    for text in document.texts():
        assert re.sub(r"\s", "", text) in page
    for one in tables(document):
        for row in one.rows:
            for cell in row.cells:
                for part in cell.split():
                    assert part in pdf


def test_the_json_follows_its_schema_and_holds_every_cell_of_every_visit(written: Path, shown: ReportContents) -> None:
    text = (written / "report.json").read_text()
    found = ReportDocument.model_validate_json(text)
    assert len(found.cells) == 40 * 5
    assert json.loads(schema_text())["$id"] == json.loads(text)["schema"] == "discnode.subject_report/1"
    missing = [one for one in found.cells if one.value_ms is None]
    assert len(missing) == 40 + 8  # a visit without scan, and a disc at another
    assert all(one.missing for one in missing)
    (primary,) = [one for one in found.cells if one.primary]
    assert (primary.level, primary.region, primary.quantity, primary.visit) == ("L4L5", "nucleus", "T2", "M12")
    assert primary.change_ms == pytest.approx(66.0 * 0.38, abs=1e-3)
    assert found.expected_false_exploratory == pytest.approx(0.05 * found.judged_exploratory)
    rows = list(csv.DictReader(io.StringIO((written / "changes.csv").read_text())))
    assert [(row["level"], row["region"], row["quantity"], row["visit"]) for row in rows] == [
        (one.level, one.region, one.quantity, one.visit) for one in found.cells
    ]
    assert [row["change_ms"] for row in rows] == [
        "" if one.change_ms is None else f"{one.change_ms}" for one in found.cells
    ]


def test_no_identity_stands_in_any_form(written: Path) -> None:
    for name in ("report.html", "report.json", "changes.csv"):
        text = (written / name).read_text()
        assert "Canary" not in text
        assert "P-4711" not in text
    pdf = "".join(page.extract_text() for page in PdfReader(written / "report.pdf").pages)
    assert "Canary" not in pdf
    assert "P-4711" not in pdf


def test_a_report_in_days_holds_no_date(shown: ReportContents, tmp_path: Path) -> None:
    write_report(replace(shown, days_only=True, images={}), tmp_path)
    page = PageText((tmp_path / "report.html").read_text()).text
    pdf = "".join(sheet.extract_text() for sheet in PdfReader(tmp_path / "report.pdf").pages)
    for text in (page, pdf, (tmp_path / "changes.csv").read_text()):
        assert not re.search(r"\d{4}-\d{2}-\d{2}", text)
        assert "reader 2" not in text
    assert not re.search(r"\d{4}-\d{2}-\d{2}", (tmp_path / "report.json").read_text())
    assert "day 94" in page
    assert "14:25" in page  # the hour is no date, and matters


def test_a_blinded_report_is_the_same_whichever_level_is_treated(blinded: Site, tmp_path: Path) -> None:
    """Byte by byte: nothing in any of its files can tell."""
    treated = blinded.plan.treated_levels
    assert treated is not None
    kept = treated.read_text()
    made = []
    try:
        for level in ("L4L5", "L2L3"):
            treated.write_text(f"subject,level\n01-007,{level}\n")
            history = blinded.history()
            folder = tmp_path / level
            folder.mkdir()
            source = ReportSource(
                *(read_source(blinded.database, blinded.settings, blinded.subject_id).trial, history, {}, ()),
                digest=inputs_digest(history, {}, "1"),
                last_digest="",
                software="1",
            )
            write_report(replace(contents_of(source, edition_of(source)), images={}), folder)
            made.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    finally:
        treated.write_text(kept)
    assert len(made[0]) == 6
    assert made[0] == made[1]
    page = PageText(made[0][Path("report.html")].decode()).text
    assert "Which level that is, this report does not show" in page
    assert "primary (*)" not in page


def test_the_same_pictures_come_out_again(document: Document, shown: ReportContents) -> None:
    before, after = (
        [block.png for block in page.blocks if isinstance(block, Picture)]
        for page in (document.pages[0], subject_report(replace(shown, images=dict(shown.images))).pages[0])
    )
    assert before == after


def test_the_digest_changes_with_what_is_shown_and_with_nothing_else(site: Site) -> None:
    history = site.history()
    digest = inputs_digest(history, {}, "1")
    assert inputs_digest(site.history(), {}, "1") == digest
    newest = history.visits[-1]
    assert newest.result is not None
    faster = replace(newest, result=newest.result | {"timings_s": {"fit": 1.0}})
    assert inputs_digest(replace(history, visits=(*history.visits[:-1], faster)), {}, "1") == digest
    other = replace(newest, result=newest.result | {"status": "needs_review"})
    assert inputs_digest(replace(history, visits=(*history.visits[:-1], other)), {}, "1") != digest
    assert inputs_digest(history, {"M3": VisitQuality(phantom="on hold")}, "1") != digest
    assert inputs_digest(history, {}, "2") != digest


# ---- DICOM


@pytest.mark.peers
@pytest.mark.parametrize("name", ["subject-sr", "subject-report"])
def test_dciodvfy_finds_no_error(written: Path, name: str) -> None:
    need("dciodvfy")
    path = written / "dicom" / f"{name}.dcm"
    done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, timeout=120, check=False)
    assert "Error" not in done.stdout + done.stderr


def test_the_measurements_read_back_with_their_time_points(written: Path, site: Site) -> None:
    report = highdicom.sr.srread(written / "dicom" / "subject-sr.dcm")
    newest = site.history().newest
    assert newest is not None
    assert newest.folder is not None
    exam = highdicom.sr.srread(newest.folder / "dicom" / "sr.dcm")
    assert report.StudyInstanceUID == exam.StudyInstanceUID
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 4 * (5 + 5 + 5 + 4)  # parts x discs of the visits that came, without the one operated on
    tracked = {(one.tracking_identifier, one.tracking_uid) for one in groups}
    assert tracked == {
        (one.tracking_identifier, one.tracking_uid) for one in exam.content.get_volumetric_roi_measurement_groups()
    }
    found = {}
    for group in groups:
        values = {
            (item.name.value, item.derivation.value if item.derivation is not None else ""): item.value
            for item in group.get_measurements()
        }
        found[group.tracking_identifier, visit_of(group)] = values
    one = found["L4/L5 disc, nucleus", "M12"]
    assert one["113065", "373098007"] == pytest.approx(91.08, abs=1e-3)
    assert one["T2_CHANGE", ""] == pytest.approx(25.08, abs=1e-3)
    assert one["T2_CHG_LOW", ""] < 0 < one["T2_CHG_HIGH", ""] < one["T2_CHANGE", ""]
    assert ("T2_CHANGE", "") not in found["L4/L5 disc, nucleus", "BL"]
    assert {visit for _, visit in found} == {"BL", "M3", "unscheduled", "M12"}


def visit_of(group: highdicom.sr.VolumetricROIMeasurementsAndQualitativeEvaluations) -> str:
    (container,) = group
    (found,) = [one for one in container.ContentSequence if one.ConceptNameCodeSequence[0].CodeValue == "126071"]
    return str(found.TextValue)


def test_time_points_have_order_and_days_since_the_baseline(written: Path) -> None:
    report = highdicom.sr.srread(written / "dicom" / "subject-sr.dcm")
    told = set()
    for group in report.content.get_volumetric_roi_measurement_groups():
        (container,) = group
        items = {one.ConceptNameCodeSequence[0].CodeValue: one for one in container.ContentSequence}
        order, offset = (items[code].MeasuredValueSequence[0].NumericValue for code in ("126073", "128740"))
        kind = items["126072"].ConceptCodeSequence[0].CodeValue
        told.add((items["126070"].TextValue, int(order), int(offset), kind))
    assert told == {
        ("01-007 BL", 1, 0, "C1442488"),
        ("01-007 M3", 2, 94, "FOLLOW_UP"),
        ("01-007 unscheduled", 4, 210, "FOLLOW_UP"),
        ("01-007 M12", 5, 361, "FOLLOW_UP"),
    }


def test_a_new_version_names_the_one_before_and_keeps_the_study(
    site: Site, shown: ReportContents, written: Path, tmp_path: Path
) -> None:
    source = read_source(site.database, site.settings, site.subject_id)
    write_report(replace(shown, edition=edition_of(source, 2), images={}), tmp_path, written)
    for name in ("subject-sr.dcm", "subject-report.dcm"):
        before, after = (pydicom.dcmread(folder / "dicom" / name) for folder in (written, tmp_path))
        assert after.SOPInstanceUID != before.SOPInstanceUID
        assert after.StudyInstanceUID == before.StudyInstanceUID
        assert after.PatientID == before.PatientID == "P-4711"
        (study,) = after.PredecessorDocumentsSequence
        (series,) = study.ReferencedSeriesSequence
        (reference,) = series.ReferencedSOPSequence
        assert reference.ReferencedSOPInstanceUID == before.SOPInstanceUID
        assert "PredecessorDocumentsSequence" not in before
    pdf = pydicom.dcmread(tmp_path / "dicom" / "subject-report.dcm")
    held = pdf.EncapsulatedDocument[: pdf.EncapsulatedDocumentLength]
    assert held == (tmp_path / "report.pdf").read_bytes()


def test_facts_say_whose_it_is_and_what_it_rests_on(document: Document) -> None:
    (facts,) = [one for one in document.pages[0].blocks if isinstance(one, Facts)]
    said = {one.name: one.value for one in facts.facts}
    assert said["Subject"] == "01-007, site 01 (University hospital)"
    assert said["Measured"] == "3 of 4 planned visits (BL, M3, M12), 1 unscheduled"
    assert "lowest disc L5/S1, by reader 2" in said["Levels"]
    assert said["Blinding"].startswith("treated level L4/L5 shown")
    assert len(ALL) == 5
    assert DAY_ZERO.isoformat() in " ".join(document.texts())
