"""A stand-in for the analysis: its stages by name, a little work in each, small real DICOM objects."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from tiny_analysis import TinySummary
from tiny_analysis import analyse as write_tiny_objects

from config.settings import Settings
from service.result_versions import Edition

STAGES = ("read", "segment", "check echoes", "fit native", "register", "fit registered", "measure", "write")
STAGE_S = 0.12


def analyse_in_stages(
    paths: Sequence[Path],
    out: Path,
    settings: Settings,
    produced_at: datetime,
    *,
    progress: Callable[[str, float], None],
    edition: Edition | None = None,
) -> TinySummary:
    """Slow enough to be killed in a stage of choice."""
    for number, stage in enumerate(STAGES):
        progress(stage, number / len(STAGES))
        time.sleep(STAGE_S)
    return write_tiny_objects(paths, out, settings, produced_at, edition=edition)


def analyse(
    paths: Sequence[Path], out: Path, settings: Settings, produced_at: datetime, *, edition: Edition | None = None
) -> TinySummary:
    """As fast as it can be."""
    return write_tiny_objects(paths, out, settings, produced_at, edition=edition)
