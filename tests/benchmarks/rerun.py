"""An exam measured again is bit-identical; measured with other settings it differs, and the difference report says how.

``python -m tests.benchmarks.rerun`` runs the whole pipeline three times on a small simulated exam, each in a process of
its own: twice as a frozen trial does, and once with another threshold of the networks. It prints how many files have
the same bytes, and the summary of the differences; it fails if the second run differs from the first in any byte that
is not a wall time, or if an object of the third has a UID of the first.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from dicom_io.simulated_scanner import write_exam
from processing.phantom import simulate_exam
from service.trials.exports.result_differences import compare_results, write_differences

_RUN = (
    "import sys; from pathlib import Path; from datetime import datetime, UTC;"
    "from config.settings import load_settings; from service.pipeline import analyse_job;"
    "config = Path(sys.argv[3]) if sys.argv[3] else None;"
    "analyse_job([Path(sys.argv[1])], Path(sys.argv[2]), load_settings(config), datetime(2026, 3, 1, tzinfo=UTC))"
)


def _measure(images: Path, out: Path, config: Path | None = None) -> None:
    command = [sys.executable, "-c", _RUN, str(images), str(out), "" if config is None else str(config)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def _files(folder: Path) -> dict[str, bytes]:
    """Content of every file; of result.json without the wall times."""
    found = {}
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        content = path.read_bytes()
        if path.name == "result.json":
            document: dict[str, Any] = json.loads(content)
            document.pop("timings_s")
            content = json.dumps(document).encode()
        found[str(path.relative_to(folder))] = content
    return found


def _uids(folder: Path) -> set[str]:
    return {one["sop_instance_uid"] for one in json.loads((folder / "result.json").read_text())["objects"]}


def main() -> int:
    """Run and judge."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_exam(simulate_exam(21, n_slices=3), folder / "images")
        (folder / "other.yaml").write_text("segmentation: {threshold: 0.8}\n")
        _measure(folder / "images", folder / "first" / "exam")
        before = _files(folder / "first")
        _measure(folder / "images", folder / "second" / "exam")
        _measure(folder / "images", folder / "other" / "exam", folder / "other.yaml")
        first, second = before, _files(folder / "second")
        same = [path for path in first if first[path] == second.get(path)]
        print(f"measured again: {len(same)} of {len(first)} files have the same bytes")
        is_same = len(same) == len(first) == len(second)
        found = compare_results(folder / "first", folder / "other")
        write_differences(found, folder / "report")
        print("with another threshold:", *found.summary(), sep="\n")
        is_untouched = _files(folder / "first") == before
        shared = _uids(folder / "first" / "exam") & _uids(folder / "other" / "exam")
        print(f"objects with the same UID: {len(shared)}; the first results untouched: {is_untouched}")
        return 0 if is_same and is_untouched and not shared and found.has_differences else 1


if __name__ == "__main__":
    sys.exit(main())
