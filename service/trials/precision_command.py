"""``discnode trial precision``: a site's own precision, from its test-retest exams."""

import argparse
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import yaml

from config.settings import Settings
from dicom_io.result_reader import UnreadableResult
from processing.display import RESEARCH_USE_ONLY
from service.reports.rendering import render
from service.trials.precision_report import precision_document, precision_table
from service.trials.precision_study import (
    PrecisionStudy,
    StudyError,
    own_profile,
    repeats_in,
    repeats_of_table,
    study,
)


def add_actions(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", load: Callable[[Path | None], Settings]
) -> None:
    """Add the action on precision; it needs no settings."""
    precision = actions.add_parser(
        "precision",
        help="measures your own precision from exams of subjects scanned twice",
        description="Writes a profile that a trial's plan can name (change.precision), and a report beside it. Scan"
        " each subject twice with the trial's protocol, repositioned in between, and process both exams.",
    )
    precision.add_argument(
        "subjects", nargs="*", type=Path, metavar="FOLDER", help="one folder per subject with its results"
    )
    precision.add_argument(
        "--pairs", type=Path, metavar="CSV", help="instead: columns subject, first, second: folders of results"
    )
    precision.add_argument("--out", type=Path, default=Path("precision.yaml"), help="profile (default: %(default)s)")
    precision.add_argument("--name", default="own", help="what plans call the profile (default: %(default)s)")
    precision.add_argument(
        "--voxels", choices=("common", "each"), default="common", help="as the plan's change.voxels (default: common)"
    )
    precision.set_defaults(command=_precision)


def _precision(options: argparse.Namespace) -> int:
    if bool(options.subjects) == bool(options.pairs):
        print("either folders of subjects or --pairs is needed", file=sys.stderr)
        return 2
    try:
        repeats = repeats_of_table(options.pairs) if options.pairs else repeats_in(options.subjects)
        found = study(repeats, common=options.voxels == "common")
    except (StudyError, UnreadableResult) as error:
        print(f"precision: {error}", file=sys.stderr)
        return 2
    _write(found, options.out, options.name)
    return 0


def _write(found: PrecisionStudy, out: Path, name: str) -> None:
    profile = own_profile(found, name)
    content = profile.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    for entry in content["profiles"][0]["entries"]:
        entry["borrowed"] = False
    head = f"# Precision of this site's own scans, by discnode trial precision. {RESEARCH_USE_ONLY}.\n"
    out.write_text(head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120), encoding="utf-8")
    report = render(precision_document(found, name, f"discnode {version('discnode')}"))
    for suffix, data in (
        (".html", report.html.encode()),
        (".pdf", report.pdf),
        (".csv", precision_table(found).encode()),
    ):
        out.with_suffix(suffix).write_bytes(data)
    for one in found.cells:
        if one.level is None:
            print(
                f"{one.quantity} {one.region}: {one.n_subjects} subjects, {one.n_discs} discs: within-subject SD"
                f" {one.within_sd_ms.value:.2f} ms, CV {100 * one.within_cv.value:.1f} %, ICC(2,1) {one.icc.value:.3f}"
            )
    for note in found.notes:
        print(f"note: {note}")
    files = ", ".join(out.with_suffix(one).name for one in (".html", ".pdf", ".csv"))
    print(f"{out}: profile {name}; beside it {files}")
