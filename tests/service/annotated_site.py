"""Small annotated sites with known truth: simulated exams as DICOM, or as volume files."""

from functools import cache
from pathlib import Path

from dicom_io.simulated_scanner import write_exam, write_truth
from processing.phantom import PhantomExam, simulate_exam


@cache
def phantom(subject: str, visit: int = 1) -> PhantomExam:
    """Three slices of a subject, the fewest that make up a MAPSS exam."""
    return simulate_exam(11, n_slices=3, subject=subject, visit=visit)


def write_dicom(exam: PhantomExam, site: Path, name: str) -> Path:
    """The images of an exam in its folder of the site, without a mask."""
    write_exam(exam, site / name)
    return site / name


def write_truth_beside(exam: PhantomExam, site: Path, name: str) -> None:
    """The truth beside the folder."""
    write_truth(exam, site / f"{name}_truth.npz")
