"""The files of a subject's report: for people, for machines, and as DICOM objects of the newest visit's study."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from config.settings import ObjectKind
from dicom_io.predecessor import name_predecessor
from dicom_io.subject_document import ReportedVisit, SubjectReport, read_header, subject_pdf_object
from dicom_io.subject_measurements import subject_sr_object
from service.reports.rendering import render
from service.trials.report_contents import ReportContents
from service.trials.report_data import changes_csv, report_document, report_json
from service.trials.report_words import state_text
from service.trials.subject_report import TITLE, subject_report

_SR, _PDF = Path("dicom") / "subject-sr.dcm", Path("dicom") / "subject-report.dcm"


@dataclass(frozen=True, slots=True)
class ReportFile:
    """A DICOM object of a report. ``path``: relative to its folder."""

    kind: ObjectKind
    path: Path
    sop_class_uid: str
    sop_instance_uid: str


def write_report(contents: ReportContents, folder: Path, earlier: Path | None = None) -> tuple[ReportFile, ...]:
    """Write a report into a folder that exists and is empty: report.html, report.pdf, report.json, changes.csv, dicom/.

    Without a measured visit that still has its objects there is no study to which DICOM objects could belong, and none
    is made. The same contents give the same bytes.

    Args:
        contents: what it shows.
        folder: of this version.
        earlier: folder of the version that it supersedes; its objects are named as predecessors.

    Raises:
        OSError: a file cannot be written.
    """
    rendered = render(subject_report(contents))
    for name, content in rendered.files().items():
        (folder / name).write_bytes(content)
    data = report_document(contents)
    (folder / "report.json").write_text(report_json(data), encoding="utf-8")
    (folder / "changes.csv").write_text(changes_csv(data), encoding="utf-8")
    report = _subject_report(contents)
    if all(one.segmentation is None for one in report.visits):
        return ()
    (folder / "dicom").mkdir()
    written = []
    for kind, path, dataset in (
        (ObjectKind.SR, _SR, subject_sr_object(report)),
        (ObjectKind.PDF, _PDF, subject_pdf_object(report, TITLE, rendered.pdf)),
    ):
        dataset.save_as(folder / path, enforce_file_format=True)
        if earlier is not None and (earlier / path).is_file():
            name_predecessor(folder / path, earlier / path)
        written.append(ReportFile(kind, path, str(dataset.SOPClassUID), str(dataset.SOPInstanceUID)))
    return tuple(written)


def _subject_report(contents: ReportContents) -> SubjectReport:
    history, edition = contents.history, contents.edition
    return SubjectReport(
        protocol_id=history.plan.protocol_id,
        subject_id=history.subject_id,
        version=edition.version,
        inputs_digest=edition.inputs_digest,
        visits=tuple(_visits(contents)),
        observations=history.observations,
        changes=contents.table.changes,
        comments=tuple(_comments(contents)),
        versions=_versions(contents),
        produced_at=edition.made_at,
    )


def _visits(contents: ReportContents) -> list[ReportedVisit]:
    history = contents.history
    made = []
    for order, visit in enumerate(history.visits, start=1):
        path = None if visit.folder is None or not visit.is_measured else visit.folder / "dicom" / "seg.dcm"
        segmentation = None if path is None or not path.is_file() else read_header(path)
        made.append(
            ReportedVisit(visit.name, order, visit is history.baseline, visit.day, visit.scan_date, segmentation)
        )
    return made


def _versions(contents: ReportContents) -> Mapping[str, str]:
    """Of the newest visit's result, with this program's own and the plan."""
    newest = contents.history.newest
    made = {} if newest is None or newest.result is None else dict(newest.result.get("versions", {}))
    kept = ("model", "model_sha256", "settings_digest", "protocol", "atlas_sha256")
    versions = {name: str(made[name]) for name in kept if name in made}
    return versions | {"discnode": contents.edition.software, "plan_sha256": contents.history.plan_sha256}


def _comments(contents: ReportContents) -> list[str]:
    history = contents.history
    texts = [
        f"Trial {history.plan.protocol_id}, subject {history.subject_id}, report version {contents.edition.version}.",
    ]
    if contents.hidden_primary:
        texts.append("The treated level is not shown: all changes stand alike, and none is the primary analysis.")
    texts += [
        f"{one.name}: {state_text(one, is_over=contents.is_over(one))}" for one in history.visits if not one.is_measured
    ]
    texts += [
        f"{level.name} from {first} on: not evaluable, {why}"
        for level, (first, why) in sorted(history.non_evaluable.items())
    ]
    return [*texts, *contents.table.notes, *contents.table.warnings, *history.warnings]
