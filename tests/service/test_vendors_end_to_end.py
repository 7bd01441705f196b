"""One exam from three scanners through ``discnode process``, with a real network: the same discs, the same times."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from short_registration import shortened

import models
from dicom_io.simulated_scanner import write_exam
from processing.phantom import PhantomExam, simulate_exam
from service.cli import main

WEIGHTS = Path(models.__file__).parent / "weights"


@pytest.fixture(scope="module")
def exam() -> PhantomExam:
    return simulate_exam(20, n_slices=3, slice_spacing_mm=8.0)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of the shipped networks, and registration that ends after a few iterations: here it only has to run."""
    folder = tmp_path_factory.mktemp("settings")
    registration = shortened(folder).model_dump(mode="json", exclude_unset=True)
    shipped = yaml.safe_load((WEIGHTS / "registry.yaml").read_text(encoding="utf-8"))["cfcm-lumbar"]
    shipped["members"] = shipped["members"][:1]
    shutil.copy(WEIGHTS / shipped["members"][0]["file"], folder)
    (folder / "registry.yaml").write_text(yaml.safe_dump({"one-of-them": shipped}), encoding="utf-8")
    changed = {
        "segmentation": {"model": "one-of-them", "weights_dir": str(folder)},
        "registration": registration,
    }
    file = folder / "discnode.yaml"
    file.write_text(yaml.safe_dump(changed), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def expected(exam: PhantomExam, settings: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of the GE series, whose pixels hold the exam at one scale."""
    return _processed(exam, settings, tmp_path_factory.mktemp("ge"), {})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flavour", "protocols", "n_objects"),
    [
        ({"vendor": "philips", "enhanced": True}, ["philips-mapss-t1rho", "philips-mapss-t2"], 3),
        ({"vendor": "siemens"}, ["siemens-mapss"], 24),
    ],
)
def test_discs_have_the_same_times_whoever_scanned_them(
    exam: PhantomExam,
    settings: Path,
    expected: dict[str, Any],
    flavour: dict[str, object],
    protocols: list[str],
    n_objects: int,
    tmp_path: Path,
) -> None:
    result = _processed(exam, settings, tmp_path, flavour)
    named = ", ".join(one["protocol"] for one in result["inputs"])
    assert sorted(set(named.split(", "))) == protocols
    assert len(list((tmp_path / "exam").rglob("*.dcm"))) == n_objects
    assert [disc["level"] for disc in result["discs"]] == [disc["level"] for disc in expected["discs"]]
    assert len(result["discs"]) == 5
    for disc, other in zip(result["discs"], expected["discs"], strict=True):
        for quantity in ("t1rho_ms", "t2_ms"):
            assert disc[quantity]["n"] == pytest.approx(other[quantity]["n"], rel=0.01)
            assert disc[quantity]["median"] == pytest.approx(other[quantity]["median"], rel=0.005)
    kinds = sorted(one["kind"] for one in result["objects"])
    assert kinds == sorted(one["kind"] for one in expected["objects"])


def _processed(exam: PhantomExam, settings: Path, folder: Path, flavour: dict[str, object]) -> dict[str, Any]:
    write_exam(exam, folder / "exam", **flavour)
    assert main(["process", str(folder / "exam"), "--out", str(folder / "out"), "--config", str(settings)]) == 0
    result: dict[str, Any] = json.loads((folder / "out" / "result.json").read_text(encoding="utf-8"))
    return result
