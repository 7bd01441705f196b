"""`discnode evaluate`: the network against a site's own annotated exams."""

import argparse
import importlib.metadata
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from config.settings import Settings

if TYPE_CHECKING:
    from service.annotated_exams import AnnotatedSource
    from service.evaluation import ExamOutcome, Networks

_OK, _USAGE, _REFUSED = 0, 2, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument(
        "data",
        type=Path,
        metavar="DATA",
        help="folder of annotated exams: SUBJECT[_VISIT]_image.nii.gz with _mask.nii.gz (1 = L5S1 .. 5 = L1L2; also"
        " .mha), a subfolder of DICOM for each exam with a Segmentation, mask or truth, or the SPIDER release",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for report.html, the tables and figures")
    parser.add_argument("--config", type=Path, help="settings file (YAML)")
    parser.add_argument("--model", help="name of the network; default: that of the settings")
    parser.add_argument(
        "--weights-dir", type=Path, help="folder with registry.yaml and weights; default: that of the settings"
    )
    parser.add_argument(
        "--folds",
        type=Path,
        help="folds.json of the training: each exam is segmented only by the network that did not see its subject",
    )
    parser.add_argument("--grades", type=Path, help="CSV with subject, level, grade and, if wanted, visit")


def evaluate(options: argparse.Namespace, settings: Settings) -> int:
    """Run the command; returns the exit status."""
    from models.registry import ModelError, load_model
    from models.training.folds import read_folds
    from processing.annotations import AnnotationError
    from service.annotated_exams import find_annotated_exams
    from service.evaluation import Networks, Outcome
    from service.evaluation_files import assemble_evaluation, write_evaluation
    from service.evaluation_report import report_page, report_text
    from service.grades import read_grades

    wanted = settings.segmentation
    try:
        record = load_model(options.model or wanted.model, options.weights_dir or wanted.weights_dir)
        networks = Networks(record, read_folds(options.folds) if options.folds else None)
        grades = read_grades(options.grades) if options.grades else None
        sys.stderr.write("evaluate: checking the data\n")
        sources = find_annotated_exams(options.data, settings)
        networks.open_for([one.subject for one in sources])
        options.out.mkdir(parents=True, exist_ok=True)
    except (ModelError, AnnotationError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return _USAGE
    except OSError as error:
        sys.stderr.write(f"{options.out}: cannot be written: {error.strerror}\n")
        return _USAGE
    outcomes = _evaluate_all(sources, networks, settings)
    evaluation = assemble_evaluation(
        outcomes,
        record,
        out_of_fold=options.folds is not None,
        threshold=record.threshold if wanted.threshold is None else wanted.threshold,
        software=f"discnode {importlib.metadata.version('discnode')}",
        settings_digest=settings.analysis_digest,
        grades=grades,
    )
    write_evaluation(evaluation, report_page(evaluation), options.out)
    sys.stdout.write(report_text(evaluation))
    for one in outcomes:
        if one.outcome is not Outcome.COMPARED:
            said = "; ".join(f"{reason.code}: {reason.detail}" for reason in one.reasons)
            sys.stderr.write(f"{one.name}: {one.outcome}{f', {said}' if said else ''}\n")
    sys.stdout.write(f"{options.out / 'report.html'}\n")
    return _OK if any(one.outcome is Outcome.COMPARED for one in outcomes) else _REFUSED


def _evaluate_all(
    sources: "tuple[AnnotatedSource, ...]", networks: "Networks", settings: Settings
) -> "list[ExamOutcome]":
    from service.evaluation import evaluate_source
    from service.progress import show_progress

    outcomes = []
    with show_progress("evaluate") as progress:
        for number, source in enumerate(sources, start=1):
            progress(f"exam {number} of {len(sources)}", (number - 1) / len(sources))
            outcomes.append(evaluate_source(source, networks, settings))
        progress("tables and figures", 1.0)
    return outcomes
