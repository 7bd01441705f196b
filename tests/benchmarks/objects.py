"""All objects of whole exams: CPU seconds to write them, their sizes, and what dicom3tools says to them.

``python -m tests.benchmarks.objects``. Simulated exams, the whole analysis: straight, oblique, one slice, Enhanced.
The seconds are those of the objects, the PDF and the overview among them, and of all files of a result; written once
before to load what is loaded once.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

from config.settings import ObjectKind, Settings, SubjectLine
from dicom_io.document_writer import ReportPdf
from dicom_io.exam_heading import exam_heading
from dicom_io.result_objects import write_objects
from dicom_io.simulated_scanner import write_exam
from dicom_io.volume_reader import ExamImages, read_exam
from processing.montage import draw_montage
from processing.phantom import simulate_exam
from processing.results import ExamResult
from service.exam_files import read_exam_files
from service.pipeline import analyse, assemble
from service.reports.exam_report import exam_report
from service.reports.pdf import pdf_file
from service.result_files import write_result

#: Options of the simulation, and of the scanner.
EXAMS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "straight, 12 slices": ({}, {}),
    "oblique by 15 degrees": ({"oblique_deg": 15.0, "n_slices": 6, "slice_spacing_mm": 6.0}, {}),
    "T1rho FSE, one slice": ({"protocol": "t1rho-fse", "n_slices": 1}, {}),
    "Enhanced, Philips": ({"n_slices": 6, "slice_spacing_mm": 6.0}, {"vendor": "philips", "enhanced": True}),
}
#: A TSL of 0 stands in Echo Time; our coding scheme; a term that this build of the program does not know.
KNOWN = ("99DISCNODE", "Unrecognized defined term = <QUANTITY>", "</EchoTime(0018,0081)[1]> - Value is zero")


def said_by(*command: str | Path) -> list[str]:
    """The lines of a validator that tell of an error or a warning that is not known."""
    done = subprocess.run(
        [str(one) for one in command], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False
    )
    lines = (done.stdout + done.stderr).splitlines()
    told = [line for line in lines if line.startswith(("Error", "Warning", "Attribute", "Different", "Missing"))]
    return [line for line in told if not any(text in line for text in KNOWN)]


def cpu_s_of_objects(result: ExamResult, images: ExamImages, folder: Path) -> float:
    """CPU seconds of the objects alone, with what is drawn for them: the overview picture and the pages of the PDF."""
    folder.mkdir()
    start_s = time.process_time()
    document = exam_report(result, exam_heading(images.source), SubjectLine.PATIENT_ID)
    pdf = ReportPdf(document.title, pdf_file(document), "patient_id/1")
    write_objects(result, images.source, draw_montage(result), folder, pdf)
    return time.process_time() - start_s


def report(name: str, folder: Path) -> bool:
    """The lines of one exam; whether nothing is wrong with it."""
    phantom, scanner = EXAMS[name]
    write_exam(simulate_exam(20, **phantom), folder / "source", **scanner)  # type: ignore[arg-type]
    files = read_exam_files([folder / "source"])
    settings = Settings()
    images = read_exam(assemble(files, settings))
    result = analyse(images, settings, datetime.now(UTC))
    write_result(result, images, folder / "warm-up")
    start_s = time.process_time()
    summary = write_result(result, images, folder / "result")
    cpu_s = time.process_time() - start_s
    objects_s = cpu_s_of_objects(result, images, folder / "objects")
    sizes: dict[ObjectKind, list[int]] = defaultdict(list)
    for one in summary.objects:
        sizes[one.kind].append((folder / "result" / one.path).stat().st_size)
    total = sum(map(sum, sizes.values()))
    print(
        f"{name}: {len(summary.objects)} objects, {total / 1e6:.1f} MB, {objects_s:.1f} CPU s; all files {cpu_s:.1f}",
        flush=True,
    )
    for kind, some in sizes.items():
        print(f"    {kind.value:12} {len(some):3}  {sum(some) / 1e6:7.2f} MB, the largest {max(some) / 1e6:.2f}")
    objects = [folder / "result" / one.path for one in summary.objects]
    wrong = {path.name: lines for path in objects if (lines := said_by("dciodvfy", "-new", path))}
    sources = sorted(path for path in (folder / "source").rglob("*") if path.is_file())
    study = [line for line in said_by("dcentvfy", *objects, *sources) if "Different information entities" not in line]
    print(
        f"    dciodvfy -new: {len(objects) - len(wrong)} of {len(objects)} without a word; dcentvfy: {len(study)} lines"
    )
    for path, lines in wrong.items():
        print(f"    {path}: {lines[0]} ({len(lines)} lines)")
    for line in study[:10]:
        print(f"    {line}")
    return not wrong and not study


def main() -> None:
    """Print the figures; exit status 1 if a validator found something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=EXAMS)
    arguments = parser.parse_args()
    good = True
    for name in [arguments.only] if arguments.only else EXAMS:
        with tempfile.TemporaryDirectory() as folder:
            good &= report(name, Path(folder))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
