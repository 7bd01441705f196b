"""Fixtures that several packages' tests share."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Our packages come before the folders of the same names here; the tests' own modules (peers, small_mr_exam) after.
sys.path.insert(0, str(TESTS.parent))
sys.path.extend(str(folder) for folder in (TESTS / "dicom_io", TESTS / "service") if str(folder) not in sys.path)

from peers import Orthanc, Storescp, need  # noqa: E402 - needs the path above

# The tests start hundreds of processes: each would compile the node's sources again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several workers none is left alone with a long file at the end: those come first."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    marks: dict[Path, set[str]] = {}
    for item in items:
        marks.setdefault(item.path, set()).update(mark.name for mark in item.iter_markers())
    items.sort(key=lambda item: ("viewer" not in marks[item.path], "slow" not in marks[item.path]))


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[Storescp]:
    """dcmtk's storage SCP, running, writing to a folder of its own."""
    need("storescp")
    with Storescp(tmp_path / "storescp") as peer:
        yield peer


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """An empty Orthanc, running."""
    need("Orthanc")
    with Orthanc(tmp_path / "orthanc") as peer:
        yield peer
