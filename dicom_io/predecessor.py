"""Says in a document which earlier one it supersedes: Predecessor Documents Sequence (PS3.3 C.17.2).

An Encapsulated PDF has it, too, as archives write it that keep several versions of a report.
"""

from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset


def name_predecessor(report: Path, earlier: Path) -> None:
    """Let the document in one file refer to the one in another file as its predecessor; the file is written anew.

    Raises:
        OSError: a file cannot be read or written.
    """
    document, before = dcmread(report), dcmread(earlier, stop_before_pixels=True)
    reference = Dataset()
    reference.ReferencedSOPClassUID = before.SOPClassUID
    reference.ReferencedSOPInstanceUID = before.SOPInstanceUID
    series = Dataset()
    series.SeriesInstanceUID = before.SeriesInstanceUID
    series.ReferencedSOPSequence = [reference]
    study = Dataset()
    study.StudyInstanceUID = before.StudyInstanceUID
    study.ReferencedSeriesSequence = [series]
    document.PredecessorDocumentsSequence = [study]
    document.save_as(report, enforce_file_format=True)
