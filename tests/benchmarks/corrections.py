"""Segmentations sent back to a running node: six edited ones measured, six that do not fit held, and how long it takes.

``python -m tests.benchmarks.corrections``. A simulated MAPSS exam of 12 slices, the whole analysis, one worker that has
already measured the exam once.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

sys.path.insert(0, str(Path(__file__).parent.parent))  # as pytest does
sys.path.insert(0, str(Path(__file__).parent.parent / "service"))

from corrected_masks import VARIANTS, edited
from node_process import Node
from peers import wait_until

from dicom_io.sender import Peer, send_files
from dicom_io.simulated_scanner import write_exam
from processing.phantom import simulate_exam


def _other_frame(dataset: Dataset) -> None:
    dataset.FrameOfReferenceUID = generate_uid()


def _other_patient(dataset: Dataset) -> None:
    dataset.PatientID = "SOMEBODY-ELSE"


def _other_grid(dataset: Dataset) -> None:
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [1.0, 1.0]


def _levels_exchanged(dataset: Dataset) -> None:
    one, other = dataset.SegmentSequence[1:3]
    for keyword in ("SegmentedPropertyTypeCodeSequence", "SegmentLabel", "TrackingUID", "TrackingID"):
        mine, theirs = getattr(one, keyword), getattr(other, keyword)
        setattr(one, keyword, theirs)
        setattr(other, keyword, mine)


def _no_exam(dataset: Dataset) -> None:
    dataset.StudyInstanceUID = generate_uid()


def _broken(dataset: Dataset) -> None:
    dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:-1]


#: What is wrong, how, and the code that it must be held with.
UNFIT: dict[str, tuple[Callable[[Dataset], None], str]] = {
    "another frame of reference": (_other_frame, "GEOMETRY_INCONSISTENT"),
    "another patient": (_other_patient, "IDENTITY_CONFLICT"),
    "another grid": (_other_grid, "GEOMETRY_INCONSISTENT"),
    "two levels exchanged": (_levels_exchanged, "LEVELS_AMBIGUOUS"),
    "a study that is not here": (_no_exam, "SERIES_INCOMPLETE"),
    "broken: a frame not described": (_broken, "UNREADABLE"),
}


def cpu_s(node: Node) -> float:
    """CPU seconds so far of the node and its processes."""
    supervisor = psutil.Process(node.pid)
    return sum(sum(one.cpu_times()[:2]) for one in (supervisor, *supervisor.children(recursive=True)))


def store(node: Node, path: Path) -> None:
    """Send one object and have it taken."""
    (outcome,) = send_files([path], Peer("127.0.0.1", node.port, "DISCNODE", "VIEWER"))
    if outcome.status != 0:
        raise RuntimeError(f"the node answered {outcome.status:04x}h")


def measure_variants(node: Node, images: list[Path], folder: Path) -> bool:
    """A line for each edited segmentation; whether all were measured."""
    results = node.settings.storage_dir / "results" / "exam-000001"
    good = True
    for number, (name, write) in enumerate(VARIANTS.items(), 2):
        mask = folder / f"edited-{number}.dcm"
        write(results / "v1/dicom/seg.dcm", images, mask)
        start_s, before_s = time.monotonic(), cpu_s(node)
        store(node, mask)
        path = results / f"v{number}" / "result.json"
        wait_until(path.is_file, f"version {number}", 600)
        wall_s, used_s = time.monotonic() - start_s, cpu_s(node) - before_s
        found = json.loads(path.read_text())
        correction = found["correction"]
        uid = str(dcmread(mask, stop_before_pixels=True).SOPInstanceUID)
        good &= correction["sop_instance_uid"] == uid and found["predecessor"]["version"] == number - 1
        dice = correction["automatic_dice"].values()
        print(
            f"{name:28} {wall_s:7.1f} {used_s:7.1f} {len(found['discs']):6} {len(found['objects']):8}"
            f" {min(dice):6.3f}-{max(dice):.3f}  {correction['editor'] or '-'}, {correction['tool']}",
            flush=True,
        )
        wait_until(lambda: {job.state for job in node.jobs} == {"done"}, "the job to be done", 60)
    return good


def hold_unfit(node: Node, folder: Path) -> bool:
    """A line for each segmentation that does not fit; whether each was held with its code and started no job."""
    automatic = node.settings.storage_dir / "results/exam-000001/v1/dicom/seg.dcm"
    n_jobs, good = len(node.jobs), True
    for number, (name, (spoil, code)) in enumerate(UNFIT.items(), 1):
        dataset = edited(dcmread(automatic))
        spoil(dataset)
        mask = folder / f"unfit-{number}.dcm"
        dataset.save_as(mask)
        start_s = time.monotonic()
        store(node, mask)
        wait_until(lambda number=number: len(node.cases) == number, name, 60)
        held = node.cases
        right = sorted(held) == sorted(one for _, one in list(UNFIT.values())[:number])
        good &= right
        print(f"{name:32} {time.monotonic() - start_s:6.1f}  {code:24} {'as it must' if right else held}", flush=True)
    return good and len(node.jobs) == n_jobs


def main() -> None:
    """Print the table; exit status 1 if one was not dealt with as it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=12)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = write_exam(simulate_exam(20, n_slices=arguments.slices), folder / "scanner")
        with Node(folder, "service.pipeline:analyse_job") as node:
            start_s = time.monotonic()
            for _ in send_files(images, Peer("127.0.0.1", node.port, "DISCNODE", "SCANNER")):
                pass
            wait_until(lambda: {job.state for job in node.jobs} == {"done"}, "the first result", 900)
            print(f"first result after {time.monotonic() - start_s:.0f} s, {cpu_s(node):.0f} CPU s of the whole node\n")
            print(f"{'edited':28} {'wall s':>7} {'CPU s':>7} {'discs':>6} {'objects':>8} {'Dice':>12}")
            good = measure_variants(node, images, folder)
            print(f"\n{'does not fit':32} {'wall s':>6}  code")
            good &= hold_unfit(node, folder)
            good &= node.stop() == 0 and "Traceback" not in node.log
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
