"""discnode trial precision: the planted precision comes out, the profile can be used, bad studies are named."""

import csv
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from repeated_results import ACQUISITION, template, write_scan

from config.trial_plans import ChangeRule
from processing.precision_profile import read_precision
from processing.results import Level, Quantity, Region
from processing.visits import Cell
from service.cli import main

CV = 0.06


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def subjects(source, tmp_path_factory):
    """Twelve subjects scanned twice: each has its own discs, each scan of a disc an error of 6 %."""
    rng = np.random.default_rng(1)
    folder = tmp_path_factory.mktemp("subjects")
    for number in range(12):
        own = rng.uniform(0.7, 1.5, 7)
        for scan in ("scan", "rescan"):
            error = np.exp(rng.normal(0, CV, (2, 7)))

            def factor(quantity, labels, own=own, error=error):
                return (own * error[list(Quantity).index(quantity)])[labels // 10]

            write_scan(source, folder / f"S{number:02d}" / scan, factor)
    return folder


def run(*arguments) -> int:
    return main(["trial", "precision", *map(str, arguments)])


@pytest.fixture(scope="module")
def written(subjects, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "precision.yaml"
    assert run(*sorted(subjects.iterdir()), "--out", out, "--name", "site-7") == 0
    return out


def test_the_planted_precision_comes_out_and_trials_can_use_it(written):
    profile = read_precision(str(written))
    assert (profile.name, profile.borrowed, profile.measured_on) == ("site-7", False, date(2026, 3, 14))
    for quantity in Quantity:
        for region in Region:
            known = profile.of(Cell(Level.L3L4, region, quantity))
            assert known.within_sd_log == pytest.approx(CV, abs=0.012)
            assert (known.n_pairs, known.between_sd_log) == (12, None)
            assert known.source.startswith("own test-retest: 12 subjects x 2 scans, 60 discs; GE MEDICAL SYSTEMS")
    assert read_precision(ChangeRule(precision="precision.yaml").precision, written.parent) == profile


def test_the_report_says_all_numbers_and_that_it_is_for_research(written):
    page = written.with_suffix(".html").read_text(encoding="utf-8")
    assert "Research use only" in page
    for text in ("site-7", "12 / 60", "ICC(2,1)", "2026-03-14", "are few", "Bland-Altman"):
        assert text in page
    assert written.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    rows = list(csv.DictReader(written.with_suffix(".csv").read_text(encoding="utf-8").splitlines()))
    assert {row["level"] for row in rows} == {"all", "L5S1", "L4L5", "L3L4", "L2L3", "L1L2"}
    assert len(rows) == 2 * 4 * 6
    assert all(0.02 < float(row["within_cv"]) < 0.12 and row["use"] == "research use only" for row in rows)


def test_a_table_names_the_pairs(subjects, tmp_path, capsys):
    table = subjects / "pairs.csv"
    lines = ["subject,first,second", *(f"S{k:02d},S{k:02d}/scan,S{k:02d}/rescan" for k in range(3))]
    table.write_text("\n".join(lines), encoding="utf-8")
    assert run("--pairs", table, "--out", tmp_path / "own.yaml", "--voxels", "each") == 0
    assert "T2 nucleus: 3 subjects, 15 discs" in capsys.readouterr().out
    table.unlink()


def other(source, folder, **changes):
    rng = np.random.default_rng(2)
    for number in range(2):
        for scan in range(2):
            acquisition = replace(ACQUISITION, **(changes if number + scan == 2 else {}))
            scale = rng.uniform(0.9, 1.1)
            write_scan(source, folder / f"S{number}" / str(scan), lambda _, __, scale=scale: scale, acquisition)
    return sorted(folder.iterdir())


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"device_serial": "B2"}, "S1: Scanner serial number: A1 at the baseline, B2 here"),
        ({"t1rho_times_ms": (0.0, 40.0, 80.0)}, "S1: Spin-lock times"),
    ],
)
def test_scans_that_are_not_alike_tell_no_repeatability(source, tmp_path, capsys, changes, word):
    assert run(*other(source, tmp_path / "in", **changes), "--out", tmp_path / "own.yaml") == 2
    told = capsys.readouterr().err
    assert word in told
    assert "scan and rescan must be alike" in told
    assert not (tmp_path / "own.yaml").exists()


def test_a_soft_difference_is_a_note(source, tmp_path, capsys):
    folders = other(source, tmp_path / "in", slice_thickness_mm=5.0)
    assert run(*folders, "--out", tmp_path / "own.yaml") == 0
    assert "note: S1: Slice thickness: 4 mm at the baseline, 5 mm here" in capsys.readouterr().out


def test_copies_of_one_exam_are_no_rescan(source, tmp_path, capsys):
    for name in ("A/1", "A/2", "B/1", "B/2"):
        write_scan(source, tmp_path / "in" / name, lambda _, __: 1.0)
    assert run(*sorted((tmp_path / "in").iterdir()), "--out", tmp_path / "own.yaml") == 2
    assert "copies of one exam?" in capsys.readouterr().err


def test_bad_input_is_named(subjects, tmp_path, capsys):
    assert run() == 2
    assert run(subjects / "S00", "--out", tmp_path / "own.yaml") == 2
    assert "at least two subjects" in capsys.readouterr().err
    assert run(subjects / "S00" / "scan", subjects / "S01", "--out", tmp_path / "own.yaml") == 2
    assert "holds 1 results; a subject needs two or more" in capsys.readouterr().err
    table = tmp_path / "pairs.csv"
    table.write_text("subject,first,second\nS00,nowhere,nothing\n", encoding="utf-8")
    assert run("--pairs", table) == 2
    assert "row 2" in capsys.readouterr().err
    table.write_text("subject,one,two\nS00,a,b\n", encoding="utf-8")
    assert run("--pairs", table) == 2
    assert "needs the columns subject, first, second" in capsys.readouterr().err
