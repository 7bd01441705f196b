"""An analysis whose outcome depends on the study: a result, a refusal, or a bug that quotes the patient."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pydicom
from tiny_analysis import TinySummary
from tiny_analysis import analyse as analyse_well

from config.settings import Settings
from processing.refusal import ReasonCode, UnsuitableInput
from service.result_versions import Edition


def analyse(
    paths: Sequence[Path], out: Path, settings: Settings, produced_at: datetime, *, edition: Edition | None = None
) -> TinySummary:
    """As the study's UID says."""
    header = pydicom.dcmread(paths[0], stop_before_pixels=True)
    study = str(header.StudyInstanceUID)
    if study.endswith(".2"):
        raise UnsuitableInput(ReasonCode.LEVELS_AMBIGUOUS, "six discs, no sacrum")
    if study.endswith(".3"):
        try:
            float(str(header.AccessionNumber))
        except ValueError as error:  # quotes the accession number, and so does what follows from it
            raise RuntimeError(f"of {header.PatientName}: {header.PatientID}") from error
    return analyse_well(paths, out, settings, produced_at, edition=edition)
