"""What a person sees of the exams: how far each one is, and what it waits for."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import IDLE_S, Desk, open_desk
from small_mr_exam import mapss_signal, write_mapss

from service import cli
from service.exams import list_exams
from service.states import ExamState


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path, completion={"idle_s": IDLE_S}) as opened:
        yield opened


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    (tmp_path / "scanner").mkdir()
    return sorted(write_mapss(tmp_path / "scanner", mapss_signal(), ImagesInAcquisition=None))


def test_an_exam_says_what_it_waits_for_while_it_waits(desk: Desk, images: list[Path]) -> None:
    desk.arrive_all(images[:-2])
    desk.sweep(1)
    (exam,) = list_exams(desk.database)
    assert (exam.state, exam.n_objects) == (ExamState.COLLECTING, 26)
    assert "26/28 images: missing" in exam.detail
    desk.arrive_all(images[-2:], 2)
    desk.sweep(3)
    (exam,) = list_exams(desk.database)
    assert "nothing tells yet" in exam.detail
    desk.sweep(IDLE_S + 2)
    (exam,) = list_exams(desk.database)
    assert (exam.state, exam.detail, exam.version) == (ExamState.QUEUED, "", 1)
    assert list_exams(desk.database, only_waiting=True) == []


def test_the_list_is_printed_and_holds_no_identity(
    desk: Desk, images: list[Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    desk.arrive_all(images[:-2])
    desk.sweep(IDLE_S)
    config = tmp_path / "node.yaml"
    config.write_text(f"storage_dir: {desk.settings.storage_dir}")
    assert cli.main(["exams", "list", "--config", str(config)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert all(part in line for part in ("incomplete", "26 objects", "1.2.3", "SERIES_INCOMPLETE", "26/28 images"))
    assert "P-17" not in line
    assert "Phantom" not in line
