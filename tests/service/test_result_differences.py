"""Two sets of results of the same exams: which numbers differ and by how much; nothing is changed."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.sections import SettingsError
from service.cli import main
from service.trials.exports.result_differences import compare_results, write_differences

LEVELS = ("L5S1", "L4L5", "L3L4", "L2L3", "L1L2")


def result(exam: int, change: Callable[[float], float] = lambda value: value, *, weights: str = "aa") -> dict[str, Any]:
    """The content of a result.json with a disc at each level."""

    def numbers(base: float) -> dict[str, Any]:
        return {key: {"mean": change(base * factor), "n": 500} for key, factor in (("t1rho_ms", 1.2), ("t2_ms", 1.0))}

    discs = [
        {
            "level": level,
            **numbers(50.0 + 7 * at + exam),
            "regions": {
                "nucleus": numbers(70.0 + 7 * at + exam),
                "anterior_annulus": numbers(40.0 + at),
                "posterior_annulus": {"t1rho_ms": {}, "t2_ms": {}},
            },
        }
        for at, level in enumerate(LEVELS)
    ]
    inputs = [{"series_uid": f"1.2.3.{exam}", "protocol": "ge-mapss"}]
    return {"status": "ok", "inputs": inputs, "discs": discs, "versions": {"discnode": "1", "model_sha256": weights}}


def put(folder: Path, name: str, content: dict[str, Any]) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "result.json").write_text(json.dumps(content))


def digest(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path]:
    """Before, and after with other weights: 2 % more, and a status that differs; an exam that only one has."""
    before, after = tmp_path / "before", tmp_path / "after"
    for exam in range(4):
        put(before, f"exam {exam}", result(exam))
        changed = result(exam, lambda value: 1.02 * value, weights="bb")
        put(after, f"another name {exam}", changed | ({"status": "needs_review"} if exam == 2 else {}))
    put(after, "new", result(9))
    return before, after


def test_differences_are_those_that_were_made(sets: tuple[Path, Path]) -> None:
    found = compare_results(*sets)
    assert (found.n_exams, found.only_before, found.only_after) == (4, 0, 1)
    assert found.versions == {"model_sha256": ("aa", "bb")}
    assert [(old, new) for _, old, new in found.statuses] == [("ok", "needs_review")]
    assert len(found.rows) == 4 * 5 * 3 * 2
    nucleus = next(one for one in found.agreements if (one.region, one.quantity) == ("nucleus", "T2"))
    truth = np.array([0.02 * (70 + 7 * at + exam) for exam in range(4) for at in range(5)])
    assert (nucleus.n, nucleus.n_different) == (20, 20)
    assert nucleus.bias_ms == pytest.approx(truth.mean())
    assert nucleus.largest_ms == pytest.approx(truth.max())
    assert nucleus.upper_ms == pytest.approx(truth.mean() + 1.96 * truth.std(ddof=1))
    assert nucleus.lower_ms == pytest.approx(truth.mean() - 1.96 * truth.std(ddof=1))


def test_the_same_results_do_not_differ(sets: tuple[Path, Path]) -> None:
    found = compare_results(sets[0], sets[0])
    assert not found.has_differences
    assert {one.n_different for one in found.agreements} == {0}


def test_the_report_changes_nothing_and_names_no_uid(sets: tuple[Path, Path], tmp_path: Path) -> None:
    earlier = digest(sets[0]) | digest(sets[1])
    found = compare_results(*sets)
    write_differences(found, tmp_path / "report")
    assert digest(sets[0]) | digest(sets[1]) == earlier
    page = (tmp_path / "report" / "differences.html").read_text()
    assert "120 of 120 numbers differ" in page
    assert "aa → bb" in page
    assert "1.2.3." not in page
    with (tmp_path / "report" / "differences.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 120
    assert all(float(row["after_ms"]) == pytest.approx(1.02 * float(row["before_ms"])) for row in rows)
    assert not any("1.2.3." in "".join(row.values()) for row in rows)
    with pytest.raises(SettingsError, match="exists"):
        write_differences(found, tmp_path / "report")


def test_versions_of_a_nodes_exams_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    for exam in range(2):
        put(results, f"exam-{exam:06d}/v1", result(exam))
        put(results, f"exam-{exam:06d}/v2", result(exam, lambda value: value + 1, weights="bb"))
        (results / f"exam-{exam:06d}" / "result.json").write_text(json.dumps(result(exam, lambda value: value + 1)))
    command = ["trial", "differences", str(results), str(results), "--out", str(tmp_path / "out")]
    assert main([*command, "--versions", "1", "2"]) == 3
    text = capsys.readouterr().out
    assert "T2 nucleus: 10 of 10 differ, at most by 1.000 ms; bias +1.000, limits +1.000 to +1.000 ms" in text
    assert main([*command[:4], "--out", str(tmp_path / "same"), "--versions", "2", "2"]) == 0


def test_two_results_of_one_exam_in_a_set_are_refused(sets: tuple[Path, Path]) -> None:
    put(sets[0], "copy", result(1))
    with pytest.raises(SettingsError, match="two results of the same exam"):
        compare_results(*sets)
    with pytest.raises(SettingsError, match=r"no result\.json"):
        compare_results(sets[0].parent / "nowhere", sets[1])
