"""The items of the paper, made of a small reproduction whose discs are the true ones."""

import csv
import shutil

import numpy as np
import pytest
import yaml
from cohort_site import CohortSite
from phantom_result import measured_phantom

from config.cohort_plans import cohort_plan_sha256, load_cohort_plan
from config.settings import Settings
from processing.results import LUMBAR_LEVELS
from service.cohort import run_folder
from service.cohort.reproduction.compared_scans import compare_scan
from service.cohort.reproduction.item_files import LINE, ItemFolder, ItemUnavailable
from service.cohort.reproduction.item_network import card_table, read_card
from service.cohort.reproduction.item_sources import read_sources
from service.cohort.reproduction.items import ITEMS, Item, items_report, make_item, write_items
from service.cohort.reproduction.records import (
    LABEL,
    Cohort,
    ReproducedScan,
    ScanTruth,
    read_scans,
    write_scans,
    write_truth,
)
from service.cohort.table import read_table
from service.result_files import write_result

#: Need the networks or elastix, or are drawn as S3 is; the whole reproduction has them.
SLOW = {"Fig 2", "S2", "S4", "S10, S11"}
SUBJECTS = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("reproduction")
    scans = [*_scans(root, Cohort.A, n_slices=1), *_scans(root, Cohort.B, n_slices=5)]
    write_scans(root, scans)
    for cohort in Cohort:
        for way in ("paper", "corrected"):
            _run(root, cohort, way)
    return root


def _scans(root, cohort, *, n_slices):
    """One measured exam with its true discs, under the names of several people whose maps differ."""
    protocol = "t1rho-fse" if n_slices == 1 else "mapss"
    exam, images, result = measured_phantom(root / f"images-{cohort}", n_slices=n_slices, protocol=protocol)
    template = root / f"template-{cohort}"
    write_result(result, images, template)
    truth = root / f"truth-{cohort}.npz"
    write_truth(ScanTruth(exam.labels, exam.t1rho_ms, exam.t2_ms, exam.affine), truth)
    (root / cohort).mkdir()
    site, rng = CohortSite(template, root / cohort), np.random.default_rng(3)
    scans = []
    for k in range(SUBJECTS):
        odi = 15 * k
        site.add(f"{cohort}{k}", effect=0.3 * odi, shift=2 * rng.standard_normal())
        own = root / cohort / f"{cohort}{k}-BL"
        for path in (template / "dicom").iterdir():
            if not (own / "dicom" / path.name).exists():
                shutil.copy(path, own / "dicom")
        values = {"age": str(30 + k), "female": str(k % 2), "lbp": str(int(k > 1)), "odi": str(odi)}
        values |= {f"grade_{level.name}": str(1 + (k + level) % 4) for level in LUMBAR_LEVELS}
        scans.append(ReproducedScan(cohort, f"{cohort}{k}", "BL", root / f"images-{cohort}", own, truth, values))
    return scans


def _run(root, cohort, way):
    grade = {"kind": "variable", "name": "grade", "variable": "grade_{level}"}
    severe = {"kind": "group", "name": "odi-over-40", "column": "odi", "above": 40}
    content = {
        "name": f"{cohort}-{way}",
        "table": f"cohort-{cohort}.csv",
        "levels": ["L4L5"],
        "quantities": ["T1rho"],
        "analyses": [grade] if cohort is Cohort.A else [severe],
        "min_n": 4,
        "paper": way == "paper",
        "inference": {"permutations": 60, "random_fields": False},
    }
    path = root / f"{content['name']}.yaml"
    path.write_text(yaml.safe_dump(content))
    plan = load_cohort_plan(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "write_report", lambda *_, **__: None)  # a run's own report is tested elsewhere
        run_folder.run_to_folder(path, plan, read_table(plan.table), root / plan.name)


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("items")
    chosen = [one for one in ITEMS if one.key not in SLOW]
    return out, write_items(folder, read_scans(folder), out, seed=11, items=chosen)


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_item_of_the_paper_is_there():
    keys = {part.strip() for one in ITEMS for part in one.key.split(",")}
    assert keys >= {"Table 1", "Table 2", "Table 3", *(f"Fig {k}" for k in range(2, 8)), "S7–S9"}
    assert keys >= {f"S{k}" for k in (1, 2, 3, 4, 5, 6, 10, 11)}


def test_an_item_is_either_made_or_told_and_its_files_carry_the_label(made, folder):
    out, items = made
    index = {row["item"]: row for row in rows_of(out / "items.csv")}
    report = (out / "report.html").read_text()
    for one in items:
        assert one.item.title in report.replace("&#39;", "'")
        assert index[one.item.key]["there"] == ("yes" if not one.reason else "in part" if one.blocks else "no")
        assert one.blocks or one.reason
        assert not one.reason or one.reason[1:] in report
    told = {one.item.key for one in items if one.reason}
    assert told == {"Fig 7", "Over time", "S5", "S6"}  # no plan asks them: no T2, no fat, one visit
    assert report.count(LABEL) > len(items)
    for path in (out / "figures").iterdir():
        if path.suffix == ".csv":
            assert {row["label"] for row in rows_of(path)} == {LINE}, path.name
        else:
            assert {path.with_suffix(end).is_file() for end in (".svg", ".pdf", ".png")} == {True}
    drawn = (out / "figures" / "fig5_A_grade_T1rho.svg").read_text()
    assert f"<!-- {LINE} -->" in drawn
    assert 'src="http' not in report
    for run in ("A-paper", "B-corrected"):
        assert cohort_plan_sha256(folder / f"{run}.yaml") in report


def test_the_true_discs_agree_with_themselves(made):
    for cohort, comparison in ((Cohort.A, "2-D"), (Cohort.B, "3-D")):
        rows = rows_of(made[0] / "figures" / f"table2_{cohort}.csv")
        own = {(row["metric"], row["level"]): row for row in rows if row["comparison"] == comparison}
        for level in (*(one.name for one in LUMBAR_LEVELS), "all"):
            assert float(own["dice", level]["mean"]) == 1.0
            assert float(own["msd_px", level]["mean"]) == 0.0
            assert float(own["volume_difference_percent", level]["mean"]) == 0.0
            assert int(own["dice", level]["n"]) == SUBJECTS * (5 if level == "all" else 1)
    for row in rows_of(made[0] / "figures" / "table3.csv"):
        assert float(row["bias_ms"]) == 0.0
        assert float(row["upper_limit_ms"]) == 0.0


def test_table_1_has_the_groups_and_the_headers_of_the_images(made):
    rows = rows_of(made[0] / "figures" / "table1_A.csv")
    (pain,) = [row for row in rows if row["variable"] == "ODI" and row["group"] == "low back pain"]
    assert (int(pain["n"]), float(pain["mean"])) == (3, 45.0)
    acquired = {
        (row["parameter"], row["cohort"]): row["value"] for row in rows_of(made[0] / "figures/table1_acquisition.csv")
    }
    assert acquired["slices", "A"] == "1"
    assert acquired["slices", "B"] == "5"
    assert acquired["spin-lock times (ms)", "B"] == "0 / 10 / 40 / 80"


def test_a_run_that_is_not_there_or_whose_plan_was_changed_is_told(folder, tmp_path):
    shutil.copytree(folder / "A-paper", tmp_path / "A-paper")
    plan = tmp_path / "A-paper" / "plan.yaml"
    plan.write_text(plan.read_text() + "# changed\n")
    sources = read_sources(tmp_path, (), Settings())
    assert not sources.runs
    one = make_item(next(item for item in ITEMS if item.key == "Fig 5"), sources, ItemFolder(tmp_path))
    said = [paragraph for block in one.blocks for paragraph in block.paragraphs]
    assert "is not the plan that was run" in said[0]
    assert "is no folder of a finished run" in said[1]
    assert str(tmp_path) not in " ".join(said)
    assert one.reason


def test_a_refused_scan_is_told_with_its_reason(folder, tmp_path):
    scan = read_scans(folder)[0]
    refused = tmp_path / "result"
    refused.mkdir()
    reason = '{"code": "LEVELS_AMBIGUOUS", "detail": "six discs"}'
    (refused / "result.json").write_text(f'{{"status": "refused", "reasons": [{reason}]}}')
    one = compare_scan(ReproducedScan(scan.cohort, "A9", "BL", scan.images, refused, scan.truth, {}), Settings())
    assert (one.outcome.value, one.reasons[0].code.value) == ("refused", "LEVELS_AMBIGUOUS")


def test_an_item_without_anything_to_show_says_so_on_its_page(folder, tmp_path):
    def ends(_sources, _files):
        yield from ()
        raise ItemUnavailable("there is nothing to show")

    sources = read_sources(folder, (), Settings())
    one = make_item(Item("Fig 99", "Nothing", ends), sources, ItemFolder(tmp_path))
    document = items_report(sources, [one])
    assert "There is nothing to show." in list(document.texts())
    assert all(LABEL in " ".join((document.use, document.footer)) for _ in document.pages)


def test_the_model_card_has_the_comparison_of_networks():
    heads, rows = card_table(read_card(), "network")
    assert {row[0] for row in rows} == {"CFCM, width 16", *(f"U-Net, {n} filters" for n in (16, 32, 64))}
    assert all(len(row) == len(heads) for row in rows)
    assert card_table("no table | here\n", "network") is None
