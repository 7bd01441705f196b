"""An exam that is measured again gives the same bytes: a frozen trial can be repeated (whole pipeline: bench)."""

from pathlib import Path

from phantom_result import measured_phantom

from service.result_files import write_result


def test_an_exam_measured_again_gives_the_same_bytes(tmp_path: Path) -> None:
    """Read from its files, fitted, measured and written twice; the same time of production, as every retry has it."""
    for name in ("first", "second"):
        _, images, result = measured_phantom(tmp_path / name / "images", n_slices=3)
        write_result(result, images, tmp_path / name / "out")
    first, second = (tmp_path / name / "out" for name in ("first", "second"))
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len([path for path in files if path.suffix == ".dcm"]) > 20
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    for path in files:
        assert (first / path).read_bytes() == (second / path).read_bytes(), path
