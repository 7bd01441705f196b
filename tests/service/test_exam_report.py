"""The exam report: what it says equals the result, HTML and PDF say the same, and nobody's name is in it."""

import dataclasses
import re
import subprocess
import sys
from datetime import date
from html.parser import HTMLParser
from io import BytesIO

import example_exam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfReader

from config.settings import SubjectLine
from dicom_io.exam_heading import ExamHeading, exam_heading
from processing.advice import ADVICE, SUMMARIES
from processing.fitting import FitStatus
from processing.refusal import Reason, ReasonCode
from processing.results import (
    LUMBAR_LEVELS,
    Correction,
    DiscMeasurement,
    ExamResult,
    Level,
    MaskOrigin,
    Quantity,
    Region,
    Verdict,
)
from service.reports import words
from service.reports.document import Column, Document, Facts, Flags, Notice, Picture, Row, Table, Text, Tone
from service.reports.exam_report import exam_report, subject_line
from service.reports.refusal_report import refusal_report
from service.reports.rendering import RenderedReport, render
from service.result_versions import Edition

USE = "RESEARCH USE ONLY. NOT FOR DIAGNOSIS."
PARTS = (Region.NUCLEUS, Region.ANTERIOR_ANNULUS, Region.POSTERIOR_ANNULUS)
HEADING = exam_heading(example_exam.source_exam())


def report_of(result: ExamResult, subject: SubjectLine = SubjectLine.PATIENT_ID) -> Document:
    return exam_report(result, HEADING, subject)


@pytest.fixture(scope="module")
def result() -> ExamResult:
    """Five networks, and a voxel of L4L5 without a value."""
    made = example_exam.exam_result()
    assert made.mask is not None
    rows = tuple(
        dataclasses.replace(row, member_sd_ms=0.25 * row.level, n_members=5) if row.region is Region.WHOLE_DISC else row
        for row in made.measurements
    )
    sure = tuple(
        dataclasses.replace(
            one,
            member_dice=0.9 + 0.01 * one.level,
            member_volume_sd_mm3=100.0 * one.level,
            n_members=5,
            n_members_with_disc=5,
        )
        for one in made.mask.confidence
    )
    mask = dataclasses.replace(made.mask, confidence=sure)
    versions = dict(made.versions) | {"model_members": "5", "atlas": "healthy", "atlas_sha256": "cd" * 32}
    return dataclasses.replace(made, measurements=rows, mask=mask, versions=versions)


@pytest.fixture(scope="module")
def document(result: ExamResult) -> Document:
    return report_of(result)


@pytest.fixture(scope="module")
def rendered(document: Document) -> RenderedReport:
    return render(document)


def blocks_of(document: Document, kind: type) -> list:
    return [block for page in document.pages for block in page.blocks if isinstance(block, kind)]


def table(document: Document, heading: str) -> Table:
    (found,) = [one for one in blocks_of(document, Table) if one.heading == heading]
    return found


def cells(one: Table) -> dict[tuple[str, str, str], str]:
    """(row, group, heading) -> cell."""
    return {
        (row.name, column.group, column.heading): cell
        for row in one.rows
        for column, cell in zip(one.columns[1:], row.cells, strict=True)
    }


class PageText(HTMLParser):
    """The texts of an HTML page, without styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._hidden = 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._hidden += tag in ("style", "title")

    def handle_endtag(self, tag):
        self._hidden -= tag in ("style", "title")

    def handle_data(self, data):
        if not self._hidden and data.strip():
            self.texts.append(data.strip())


def pdf_pages(content: bytes) -> list[str]:
    """The text of each page, blanks made one."""
    return [" ".join(page.extract_text().split()) for page in PdfReader(BytesIO(content)).pages]


def squeezed(text: str) -> str:
    """Without blanks: where a line breaks does not matter."""
    return re.sub(r"\s", "", text)


# ---- what it says


def by_place(result: ExamResult) -> dict[tuple[Level, Region, Quantity], DiscMeasurement]:
    return {(row.level, row.region, row.quantity): row for row in result.measurements}


def test_the_numbers_of_whole_discs_are_those_of_the_result(result, document):
    found = cells(table(document, "Whole discs"))
    rows = by_place(result)
    for level, name in {Level.L5S1: "L5/S1", Level.L4L5: "L4/L5", Level.L3L4: "L3/L4", Level.L1L2: "L1/L2"}.items():
        for quantity, group in {Quantity.T1RHO: "T1ρ (ms)", Quantity.T2: "T2 (ms)"}.items():
            row = rows[level, Region.WHOLE_DISC, quantity]
            mean, sd = found[name, group, "mean ± SD"].split(" ± ")
            assert float(mean) == pytest.approx(row.mean_ms, abs=0.0501)
            assert float(sd) == pytest.approx(row.sd_ms, abs=0.0501)
            assert float(found[name, group, "median"]) == pytest.approx(row.median_ms, abs=0.0501)
            assert float(found[name, group, "networks ±"]) == pytest.approx(0.25 * level, abs=0.0051)
            assert int(found[name, group, "voxels"].replace(",", "")) == row.n
            share = 100 * row.n_excluded / (row.n + row.n_excluded)
            assert float(found[name, group, "excl. %"]) == pytest.approx(share, abs=0.0501)
        assert float(found[name, "volume", "cm³"]) == pytest.approx(result.volumes_mm3[level] / 1000, abs=0.00501)


def test_the_numbers_of_parts_are_those_of_the_result(result, document):
    found = cells(table(document, "Parts of the discs"))
    rows = by_place(result)
    names = ("nucleus", "anterior annulus", "posterior annulus")
    assert len(found) == 5 * 3 * 2
    for region, heading in zip(PARTS, names, strict=True):
        for quantity, group in {Quantity.T1RHO: "T1ρ (ms), mean ± SD", Quantity.T2: "T2 (ms), mean ± SD"}.items():
            row = rows[Level.L2L3, region, quantity]
            assert found["L2/L3", group, heading] == f"{row.mean_ms:.1f} ± {row.sd_ms:.1f}"


def test_discs_stand_from_above_in_the_colours_of_the_pictures(document):
    rows = table(document, "Whole discs").rows
    assert [row.name for row in rows] == ["L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1"]
    assert [row.colour for row in rows][-1] == (230, 159, 0)


def test_a_disc_that_was_not_found_has_a_row_of_dashes():
    some = report_of(example_exam.exam_result((Level.L5S1, Level.L3L4)))
    one = table(some, "Whole discs")
    assert {row.name: set(row.cells) == {"–"} for row in one.rows} == {
        **{"L1/L2": True, "L2/L3": True, "L3/L4": False, "L4/L5": True, "L5/S1": False}
    }
    assert "A dash" in one.note
    assert [row.name for row in table(some, "Registration to the atlas").rows] == ["L3/L4", "L5/S1"]


def test_a_value_that_does_not_exist_is_a_dash_and_never_nan(result):
    nothing = dataclasses.replace(
        result.measurements[0], mean_ms=float("nan"), sd_ms=float("nan"), median_ms=float("nan"), n=0, member_sd_ms=None
    )
    one = dataclasses.replace(result.measurements[1], n=1, sd_ms=float("nan"))
    made = report_of(dataclasses.replace(result, measurements=(nothing, one)))
    found = cells(table(made, "Whole discs"))
    assert [found["L5/S1", "T1ρ (ms)", name] for name in ("mean ± SD", "median", "networks ±", "voxels")] == [
        *("–", "–", "–", "0")
    ]
    assert found["L5/S1", "T2 (ms)", "mean ± SD"] == f"{one.mean_ms:.1f}"
    assert not [text for text in made.texts() if "nan" in text.lower().split()]


def test_an_exam_without_echoes_has_volumes_and_no_times():
    made = report_of(example_exam.exam_result(with_maps=False))
    assert made.title == "Volumes of the lumbar discs"
    assert [one.heading for one in blocks_of(made, Table)] == ["Whole discs", "Segmentation"]
    assert [column.heading for column in table(made, "Whole discs").columns] == ["disc", "cm³"]
    assert "one image for each slice" in list(made.texts())
    assert not [text for text in made.texts() if "T1ρ" in text or "fitted" in text]


def test_what_was_excluded_is_said_with_why_and_where(document):
    (excluded,) = [one for one in blocks_of(document, Text) if one.heading == "Excluded voxels"]
    assert "1 of 2,418 voxels" in excluded.paragraphs[0]
    assert "1 signal does not fall" in excluded.paragraphs[0]
    assert "Most in L4/L5 (0.2 %)" in excluded.paragraphs[0]


def test_quality_tables_hold_the_result(result, document):
    segmentation = cells(table(document, "Segmentation"))
    assert segmentation["L2/L3", "", "Dice between networks"] == "0.94"
    assert segmentation["L2/L3", "", "volume SD (cm³)"] == "0.40"
    assert segmentation["L2/L3", "", "networks that see it"] == "5 of 5"
    registration = cells(table(document, "Registration to the atlas"))
    assert registration["L3/L4", "", "Dice"] == "0.930"
    assert registration["L3/L4", "", "SD of det J"] == "0.130"
    motion = table(document, "Motion between the images")
    assert [(row.name, row.cells) for row in motion.rows] == [
        ("T1ρ, 10 ms", ("1.12", "0.25", "−0.50", "0.75", "yes")),
        ("T2, 51.4 ms", ("–", "–", "–", "–", "no")),
    ]


def test_it_says_what_made_it(result, document):
    (made_with,) = [one for one in blocks_of(document, Facts) if one.heading == "Made with"]
    facts = {fact.name: fact.value for fact in made_with.facts}
    assert facts["networks"] == f"cfcm-lumbar, 5 networks, run by CPUExecutionProvider, SHA-256 {'ab' * 32}"
    assert facts["atlas"] == f"healthy, SHA-256 {'cd' * 32}"
    assert (facts["discnode"], facts["settings"], facts["protocol card"]) == ("0.1.0", "0123456789abcdef", "ge-mapss")
    (method,) = [one for one in blocks_of(document, Text) if one.heading == "Method"]
    assert "5 networks" in method.paragraphs[0]
    assert "10.1002/mrm.28210" in method.paragraphs[0]


def test_the_head_says_when_where_and_how(document):
    head = document.pages[0].blocks[0]
    assert isinstance(head, Facts)
    assert {fact.name: fact.value for fact in head.facts} == {
        "Subject": "P-0815",
        "Exam of": "2026-03-13",
        "Scanner": "GE MEDICAL SYSTEMS DISCOVERY MR750w, 3 T",
        "Protocol": "ge-mapss",
        "Times": "T1ρ 0, 10, 40, 80 ms; T2 0, 12.8, 25.7, 51.4 ms",
        "Analysed": "2026-03-14 09:26 UTC",
    }


def test_a_later_analysis_says_which_one_it_replaces(result):
    made = exam_report(result, HEADING, SubjectLine.PATIENT_ID, Edition(3, 1))
    assert "2026-03-14 09:26 UTC, version 3: replaces version 1" in list(made.texts())


# ---- doubts, refusals, corrections


def test_doubts_are_in_words_first_by_kind_then_in_full(result):
    reasons = (
        Reason(ReasonCode.REGISTRATION_POOR, "L1L2: Dice with the atlas disc 0.81, limit 0.85"),
        Reason(ReasonCode.REGISTRATION_POOR, "L4L5: the deformation folds at 3 voxels"),
        Reason(ReasonCode.REVIEW_REQUIRED, "L4L5 whole_disc T1rho: 31% of the voxels could not be fitted (9 NO_DECAY)"),
        Reason(ReasonCode.MOTION, "T1rho, TSL 40 ms: 1.4 mm from the first image, limit 0.8 mm"),
    )
    made = report_of(dataclasses.replace(result, verdict=Verdict.NEEDS_REVIEW, reasons=reasons))
    (notice,) = blocks_of(made, Notice)
    assert notice == Notice(
        Tone.CAUTION,
        "Needs review: 4 doubts, see Quality control",
        (
            "A disc was not brought onto the atlas well: L1/L2 and L4/L5.",
            "A measurement is doubtful: L4/L5.",
            "Motion between the images.",
        ),
    )
    (flags,) = blocks_of(made, Flags)
    assert [flag.code for flag in flags.flags] == ["REGISTRATION_POOR", "REVIEW_REQUIRED", "MOTION"]
    assert flags.flags[0].details == (
        "L1/L2: Dice with the atlas disc 0.81, limit 0.85",
        "L4/L5: the deformation folds at 3 voxels",
    )
    assert flags.flags[1].details == (
        "L4/L5 whole disc T1ρ: 31% of the voxels could not be fitted (9 signal does not fall)",
    )
    assert all(flag.advice == ADVICE[ReasonCode(flag.code)] for flag in flags.flags)


@pytest.mark.parametrize(
    ("detail", "shown"),
    [
        ("not found: L1L2", "Not found: L1/L2"),
        ("ge-mapss: 40/84 images", "ge-mapss: 40/84 images"),
        ("T1rho, TSL 40 ms", "T1ρ, TSL 40 ms"),
        ("EchoTime is 0", "EchoTime is 0"),
        ("MY_NO_DECAY xL1L2 L1L2x a/L1L2", "MY_NO_DECAY xL1L2 L1L2x a/L1L2"),
        ("", ""),
    ],
)
def test_names_of_the_code_become_words_and_other_names_stay(detail, shown):
    (flag,) = words.flags("", (Reason(ReasonCode.MOTION, detail),)).flags
    assert flag.details == (shown,)


def test_an_exam_without_doubts_says_so(result):
    made = report_of(dataclasses.replace(result, verdict=Verdict.OK, reasons=()))
    (notice,) = blocks_of(made, Notice)
    assert (notice.tone, notice.title) == (Tone.GOOD, "No doubts")
    assert not blocks_of(made, Flags)


def test_every_reason_and_every_excluded_voxel_has_words():
    assert set(SUMMARIES) == set(ADVICE) == set(ReasonCode)
    assert set(words.EXCLUSIONS) == {one.name for one in FitStatus} - {"NOT_FITTED", "FITTED"}


def test_a_corrected_exam_names_the_person_and_the_agreement(result):
    dice = {level: 0.9 + 0.01 * level for level in LUMBAR_LEVELS if level is not Level.L1L2}
    correction = Correction(MaskOrigin("ab" * 32, "2.25.4711", "Reader^Ann", "3D Slicer 5.8"), dice, (Level.L1L2,))
    made = report_of(dataclasses.replace(result, correction=correction))
    _, notice = blocks_of(made, Notice)
    assert notice.lines == (
        "By Reader Ann, with 3D Slicer 5.8: segmentation 2.25.4711.",
        "Dice with the automatic discs: L2/L3 0.940, L3/L4 0.930, L4/L5 0.920 and L5/S1 0.910. Left out: L1/L2.",
    )
    assert [text for text in made.texts() if "drawn or changed by a person on what networks" in text]


def test_discs_that_no_network_had_outlined_are_not_said_to_be_theirs(result):
    refusal = Reason(ReasonCode.LEVELS_AMBIGUOUS, "six discs, no sacrum")
    drawn = dataclasses.replace(result, correction=Correction(MaskOrigin("ab" * 32), {}, (), refusal))
    texts = report_of(drawn).texts()
    assert any(text.startswith("The discs were drawn by a person. In each") for text in texts)


def test_a_refusal_says_why_and_what_helps_on_one_page():
    reasons = (
        Reason(ReasonCode.SERIES_INCOMPLETE, "slice 4 has no image at TSL 40 ms"),
        *(Reason(ReasonCode.UNREADABLE, f"file {number} of 96: broken DICOM file") for number in range(1, 41)),
    )
    made = refusal_report(reasons, [f"1.2.{number}" for number in range(9)], "0.1.0")
    shown = render(made)
    (page,) = pdf_pages(shown.pdf)
    for text in ("This exam was not measured", "Slice 4 has no image at TSL 40 ms", "SERIES_INCOMPLETE", USE):
        assert text in page
    assert "and 33 more, all in result.json" in page
    assert ADVICE[ReasonCode.SERIES_INCOMPLETE][:40] in page
    assert "and 3 more, all in result.json" in page
    assert {text for text in made.texts() if text} <= set(PageText(shown.html).texts)


@settings(max_examples=40, deadline=None)
@given(text=st.text(max_size=200) | st.text("<>&\"';/ ab\x00\x1b\n\u2028山😀", max_size=80))
def test_whatever_a_header_held_a_refusal_can_be_written(text):
    """Details quote headers; the supervisor writes refusals and must not stumble over one."""
    both = render(refusal_report((Reason(ReasonCode.UNREADABLE, text),), [text], "0.1.0"))
    assert "This exam was not measured" in pdf_pages(both.pdf)[0]
    assert "This exam was not measured" in both.html


def test_the_supervisor_writes_a_refusal_without_the_libraries_of_pictures():
    code = "import sys, service.reports.refusal_report, service.reports.rendering; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"


# ---- whose exam it is


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        (SubjectLine.PATIENT_ID, "P-0815"),
        (SubjectLine.TRIAL_SUBJECT, "S-0042, trial DISC-1, site 07, visit V2"),
        (SubjectLine.NONE, "not shown"),
    ],
)
def test_the_policy_decides_what_tells_whose_exam_it_is(result, subject, shown):
    assert subject_line(HEADING, subject) == shown
    made = report_of(result, subject)
    both = render(made)
    header = example_exam.source_exam().grid_instances[0]
    secrets = {str(header[name].value) for name in ("PatientID", "PatientBirthDate", "AccessionNumber", "StudyID")}
    secrets |= {"Ångström", "Åsa", "Müller", str(header.ClinicalTrialSubjectID)} - {shown.split(",")[0]}
    secrets -= {shown}
    pages = " ".join((*PageText(both.html).texts, *pdf_pages(both.pdf)))
    assert [one for one in secrets if re.search(rf"(?<!\w){re.escape(one)}(?!\w)", pages)] == []
    assert pages.count(shown) == 2


def test_a_subject_of_no_trial_and_without_id_is_said_to_have_none():
    nobody = ExamHeading(study_date=date(2026, 1, 2))
    assert subject_line(nobody, SubjectLine.TRIAL_SUBJECT) == "not in a trial"
    assert subject_line(nobody, SubjectLine.PATIENT_ID) == "no patient ID"


# ---- both forms


def test_both_forms_show_every_text_of_the_document(document, rendered):
    html_text = squeezed(" ".join(PageText(rendered.html).texts))
    pdf_text = squeezed(" ".join(pdf_pages(rendered.pdf)))
    texts = [squeezed(text) for text in document.texts() if text]
    assert len(texts) > 250
    assert [text for text in texts if text not in html_text] == []
    assert [text for text in texts if text not in pdf_text] == []


def test_both_forms_hold_the_same_numbers_in_the_same_order(document, rendered):
    tables = [cell for one in blocks_of(document, Table) for row in one.rows for cell in row.cells]
    html_text = PageText(rendered.html).texts
    at = -1
    for cell in tables:
        at = html_text.index(cell, at + 1)
    rows = [squeezed(row.name + "".join(row.cells)) for one in blocks_of(document, Table) for row in one.rows]
    pdf_text = squeezed(" ".join(pdf_pages(rendered.pdf)))
    places = [pdf_text.find(row) for row in rows]
    assert -1 not in places
    assert places == sorted(places)


def test_every_page_says_research_use(document, rendered):
    pages = pdf_pages(rendered.pdf)
    assert len(pages) == 2
    for number, page in enumerate(pages, start=1):
        assert page.count(USE) == 2
        assert f"page {number} of 2" in page
    assert PageText(rendered.html).texts.count(USE) == 2 * len(document.pages)


def test_the_same_result_gives_the_same_bytes(result, rendered):
    again = render(report_of(example_exam.exam_result()))
    assert again == render(report_of(example_exam.exam_result()))
    assert again != rendered


def test_the_html_is_one_accessible_file_without_scripts(document, rendered):
    page = PageText(rendered.html)
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe"} & set(tags)
    assert [attributes["lang"] for tag, attributes in page.tags if tag == "html"] == ["en"]
    sources = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert [source[:22] for source in sources] == ["data:image/png;base64,"] * 2
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")
    assert "http" not in rendered.html
    scopes = [attributes.get("scope") for tag, attributes in page.tags if tag == "th"]
    tables = blocks_of(document, Table)
    assert scopes.count("row") == sum(len(one.rows) for one in tables)
    assert scopes.count("col") == sum(len(one.columns) for one in tables)
    assert None not in scopes
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    named = [attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes]
    assert set(named) <= set(ids)


def test_markup_in_a_text_stays_text(result):
    odd = "<script>alert('1')</script> & <b>\"L5S1\"</b> {{ 7 * 7 }} <br/> ]]>"
    made = report_of(dataclasses.replace(result, reasons=(Reason(ReasonCode.MOTION, odd),)))
    both = render(made)
    shown = odd.replace("L5S1", "L5/S1")
    assert shown in " ".join(PageText(both.html).texts)
    assert "script" not in [tag for tag, _ in PageText(both.html).tags]
    assert squeezed(shown) in squeezed(" ".join(pdf_pages(both.pdf)))


def test_letters_that_the_font_lacks_do_not_become_boxes(result):
    """Two subjects of a trial, each of two boxes, looked like one."""
    heading = ExamHeading(trial_subject_id="漢字-7", trial_site_id="Örebro")
    report = render(exam_report(result, heading, SubjectLine.TRIAL_SUBJECT))
    text = PdfReader(BytesIO(report.pdf)).pages[0].extract_text()
    assert "<U+6F22><U+5B57>-7, site Örebro" in text
    assert "漢字-7" in report.html


def test_long_texts_wrap_and_the_first_page_stays_one_page(result):
    """Every kind of doubt, a correction, an endless word: nothing is cut, nothing runs out of the page."""
    reasons = tuple(
        Reason(code, f"{code.name.lower()}-{'x' * 300} L{n % 4 + 1}L{n % 4 + 2} ρ ±")
        for n, code in enumerate(ReasonCode)
    )
    correction = Correction(
        MaskOrigin("ab" * 32, "2.25." + "1" * 59, "W" * 64, "T" * 64), dict.fromkeys(LUMBAR_LEVELS, 1.0)
    )
    made = exam_report(
        dataclasses.replace(result, reasons=reasons, correction=correction),
        dataclasses.replace(HEADING, scanner="S" * 130, patient_id="P" * 64),
        SubjectLine.PATIENT_ID,
    )
    pages = PdfReader(BytesIO(render(made).pdf)).pages
    texts = [squeezed(page.extract_text()) for page in pages]
    assert len(pages) >= 3
    assert [squeezed(made.title) in text for text in texts] == [True, *[False] * (len(pages) - 1)]
    assert all(text.count(squeezed(USE)) == 2 for text in texts)
    whole = re.sub(squeezed(USE), "", "".join(texts))
    for code in ReasonCode:
        assert f"{code.name.lower()}-{'x' * 300}" in whole
    for page in pages:
        seen: list[float] = []
        page.extract_text(
            visitor_text=lambda text, _, matrix, font, size, seen=seen: seen.append(matrix[4]) if text.strip() else None
        )
        assert min(seen) >= 0
        assert max(seen) < 595 - 40


@pytest.mark.filterwarnings("ignore:The value length:UserWarning")  # pydicom, when such a header is made
def test_headers_longer_than_a_page_do_not_cost_the_result(result):
    source = example_exam.source_exam()
    for keyword in ("PatientID", "ManufacturerModelName", "ClinicalTrialSubjectID", "ClinicalTrialSiteID"):
        setattr(source.grid_instances[0], keyword, "X" * 9000)
    for subject in SubjectLine:
        assert len(PdfReader(BytesIO(render(exam_report(result, exam_heading(source), subject)).pdf)).pages) >= 2


def test_a_picture_is_kept_as_it_is_in_both_forms(document, rendered):
    pictures = blocks_of(document, Picture)
    assert len(pictures) == 2
    images = [image.image for page in PdfReader(BytesIO(rendered.pdf)).pages for image in page.images]
    assert [image.size for image in images] == [(one.width_px, one.height_px) for one in pictures]


def test_a_table_with_a_cell_too_few_is_refused():
    with pytest.raises(ValueError, match="1 cells in the row 'a' of 3 columns"):
        Table("", (Column("x"), Column("y"), Column("z")), (Row("a", ("1",)),))


@pytest.mark.parametrize(
    ("part", "whole", "text"), [(0, 10, "0.0"), (1, 10_000, "< 0.1"), (1, 3, "33.3"), (0, 0, "–"), (5, 5, "100.0")]
)
def test_a_share_is_never_rounded_to_nothing(part, whole, text):
    assert words.percent(part, whole) == text
