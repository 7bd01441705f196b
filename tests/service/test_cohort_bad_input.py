"""``discnode cohort check`` on tables and plans that cannot be analysed: each fault names its row and the rule."""

import json
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from service.cli import main

VERSIONS = {"atlas_sha256": "a" * 64, "protocol": "mapss", "registration_preset": "standard", "discnode": "1"}
HEADER = "subject,visit,result,age,bmi,odi,grade,site,arm"
AGES = (31, 45, 52, 38, 60, 27, 49, 33, 57, 41)
BASE = tuple(
    f"S{i},BL,r{i},{AGES[i]},{22 + i * i % 7},{i * 37 % 80},{1 + i % 5},{('south', 'north')[i % 2]},{'ab'[i >= 6]}"
    for i in range(10)
)
VARIABLE = {"kind": "variable", "name": "q", "variable": "odi", "covariates": ["age"], "visit": "BL"}


class Desk:
    """A folder with a table, results and a plan."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for i in range(10):
            self.result(f"r{i}")

    def result(self, name: str, content: object = None, **versions: str) -> None:
        """A result that says as much as a check reads."""
        (self.folder / name).mkdir(exist_ok=True)
        document = {"status": "ok", "versions": VERSIONS | versions} if content is None else content
        (self.folder / name / "result.json").write_text(json.dumps(document))

    def table(self, rows: tuple[str, ...] = BASE, header: str = HEADER, encoding: str = "utf-8") -> None:
        """The table."""
        (self.folder / "cohort.csv").write_bytes(("\n".join((header, *rows)) + "\n").encode(encoding))

    def check(self, analysis: dict[str, object] = VARIABLE, **plan: object) -> int:
        """Exit code of ``discnode cohort check``."""
        content = {"name": "t", "table": "cohort.csv", "levels": ["L4L5"], "analyses": [analysis], "min_n": 5} | plan
        (self.folder / "plan.yaml").write_text(yaml.safe_dump(content))
        return main(["cohort", "check", str(self.folder / "plan.yaml")])


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path)
    desk.table()
    return desk


def changed(row: int, column: str, value: str) -> tuple[str, ...]:
    cells = BASE[row].split(",")
    cells[HEADER.split(",").index(column)] = value
    return (*BASE[:row], ",".join(cells), *BASE[row + 1 :])


def everywhere(column: str, values: list[str]) -> tuple[str, ...]:
    rows = BASE
    for index, value in enumerate(values):
        cells = rows[index].split(",")
        cells[HEADER.split(",").index(column)] = value
        rows = (*rows[:index], ",".join(cells), *rows[index + 1 :])
    return rows


def test_a_sound_plan_is_in_order(desk, capsys):
    assert desk.check() == 0
    assert "q at L4L5: 10 subjects" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ((*BASE, "S0,BL,r9,1,1,1,1,north,a"), "line 12: S0 has the visit 'BL' in line 2, too"),
        (changed(4, "result", "r1"), "line 6: r1: is the result of line 3, too"),
        (changed(4, "result", "./r1"), "line 6: r1: is the result of line 3, too"),
        (changed(5, "subject", "s1"), "line 7: 's1' is written 'S1' in line 3"),
        (changed(3, "subject", " "), "line 5: subject and result must be given"),
        (changed(3, "result", "gone"), "line 5: gone: holds no result.json"),
        ((*BASE[:2], BASE[2] + ",7", *BASE[3:]), "line 4: has another number of cells than the first line"),
        ((*BASE[:2], '"S2,BL', *BASE[3:]), "is not CSV"),
        ((), "holds no row"),
        (changed(2, "age", "forty"), "line 4: age: 'forty' is not a number"),
        (changed(2, "age", '"41,5"'), "line 4: age: '41,5' is not a number; write a point, not a comma"),
        (changed(2, "odi", "1_0"), "line 4: odi: '1_0' is not a number"),
        (changed(2, "odi", "1e999"), "line 4: odi: '1e999' is not a finite number"),
        (changed(2, "odi", "inf"), "line 4: odi: 'inf' is not a finite number"),
        (everywhere("age", ["50"] * 10), "age: the same value (50) for all 10 subjects (lines 2 to 11)"),
        (everywhere("odi", [str(2 * age + 1) for age in AGES]), "odi: is a combination of the columns before it (age)"),
        (everywhere("age", [""] * 6), "4 subjects have all values; min_n is 5 (line 2: S0: no age"),
    ],
)
def test_a_fault_of_a_row_names_its_line(desk, capsys, rows, said):
    desk.table(rows)
    assert desk.check() == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("header", "encoding", "said"),
    [
        (HEADER.replace(",", ";"), "utf-8", "line 1: columns are separated by ';'; save the table with commas"),
        (HEADER.replace(",", "\t"), "utf-8", "line 1: columns are separated by '\\t'"),
        (HEADER.replace("site", "clinic"), "utf-16", "line 1: is not UTF-8"),
        (HEADER.replace("arm", "ärm"), "latin-1", "line 1: is not UTF-8; save the table as CSV in UTF-8"),
        (HEADER.replace("subject", "person"), "utf-8", "lacks the column subject; needed are subject, visit, result"),
        (HEADER.replace("bmi", "age"), "utf-8", "two columns are called 'age'"),
    ],
)
def test_a_table_of_another_form_is_refused(desk, capsys, header, encoding, said):
    rows = tuple(row.replace(",", ";") for row in BASE) if ";" in header else BASE
    desk.table(rows, header, encoding)
    assert desk.check() == 2
    assert said in capsys.readouterr().err


def test_the_line_with_a_letter_of_another_encoding_is_told(desk, capsys):
    desk.table(changed(6, "arm", "vorläufig"), encoding="latin-1")
    assert desk.check() == 2
    assert "line 8: is not UTF-8" in capsys.readouterr().err


def test_what_excel_writes_is_read(desk):
    desk.table(encoding="utf-8-sig")
    content = (desk.folder / "cohort.csv").read_bytes()
    (desk.folder / "cohort.csv").write_bytes(content.replace(b"\n", b"\r\n") + b"\r\n")
    assert desk.check() == 0


@pytest.mark.parametrize(
    ("analysis", "plan", "said"),
    [
        ({"variable": "smoker"}, {}, "unknown column 'smoker'; there are age, bmi"),
        ({"covariates": ["age", "odi"]}, {}, "odi: is a covariate, too"),
        ({"covariates": ["age", "bmi", "odi", "grade"], "variable": "grade"}, {}, "grade: is a covariate, too"),
        ({"visit": "M12"}, {}, "no scan of the visit 'M12'; there are BL"),
        ({}, {"min_n": 11}, "10 subjects have all values; min_n is 11"),
        ({}, {"site": "clinic"}, "unknown column 'clinic'"),
        ({"kind": "group", "column": "arm", "second": "c"}, {}, "arm: no row has 'c'; there are a, b"),
        ({"kind": "group", "column": "odi", "above": 73}, {}, "the second group has 1 subjects (S2); at least 2"),
        ({"kind": "group", "column": "odi", "above": 99}, {}, "odi: the same value (0) for all 10 subjects"),
        ({"kind": "time", "baseline": "BL", "later": "M6"}, {}, "no scan of the visit 'M6'"),
    ],
)
def test_a_question_that_cannot_be_asked_says_why(desk, capsys, analysis, plan, said):
    kept = {"name": "q", "visit": "BL"} if analysis.get("kind") == "group" else {"name": "q"}
    base = kept if "kind" in analysis else VARIABLE
    assert desk.check(base | analysis, **plan) == 2
    assert said in capsys.readouterr().err


def test_ranks_that_explain_one_another_are_told(desk, capsys):
    desk.table(everywhere("odi", [str(age**2) for age in AGES]))
    assert desk.check() == 0  # not collinear as numbers
    assert desk.check(VARIABLE | {"ranks": True}) == 2
    assert "ranks of odi: is a combination of the columns before it (ranks of age)" in capsys.readouterr().err


def test_follow_ups_are_not_independent_subjects(desk, capsys):
    desk.table((*BASE[:9], "S0,M12,r9,32,23,10,2,north,a"))
    assert desk.check({key: value for key, value in VARIABLE.items() if key != "visit"}) == 2
    assert "more than one scan of S0 (lines 2, 11): scans of one subject are not independent" in capsys.readouterr().err


def test_a_missing_covariate_leaves_its_subject_out_and_says_so(desk, capsys):
    desk.table(changed(3, "age", "NA"))
    assert desk.check() == 0
    assert "9 subjects, 1 left out (line 5: S3: no age)" in capsys.readouterr().out


class TestSites:
    def test_a_site_for_each_subject_leaves_nothing_to_exchange(self, desk, capsys):
        desk.table(everywhere("site", [f"site {i}" for i in range(10)]))
        assert desk.check(site="site") == 2
        assert "within site no two subjects differ that could change places" in capsys.readouterr().err

    def test_groups_that_are_sites_leave_nothing_to_exchange(self, desk, capsys):
        analysis = {"kind": "group", "name": "q", "column": "site", "second": "north", "visit": "BL"}
        assert desk.check(analysis, site="site") == 2
        assert "within site no two subjects differ" in capsys.readouterr().err

    def test_a_missing_site_is_no_site(self, desk, capsys):
        desk.table(changed(7, "site", " "))
        assert desk.check(site="site") == 2
        assert "line 9: S7: no site" in capsys.readouterr().err

    @pytest.mark.parametrize("analysis", [VARIABLE, {"kind": "between", "name": "q", "visit": "BL"}])
    def test_one_site_is_none_to_adjust_for(self, desk, capsys, analysis):
        desk.table(everywhere("site", ["north"] * 10))
        assert desk.check(analysis, site="site") == 2
        assert "site: the same for all 10 subjects: leave site out of the plan" in capsys.readouterr().err

    def test_too_many_sites_leave_nothing_to_correlate(self, desk, capsys):
        between = {"kind": "between", "name": "q", "visit": "BL"}
        desk.table(everywhere("site", [f"site {i % 9}" for i in range(10)]))
        assert desk.check(between, site="site") == 2
        assert "10 subjects are too few for 9 sites: at least 11 are needed" in capsys.readouterr().err
        desk.table(everywhere("site", [f"site {i % 5}" for i in range(10)]))
        assert desk.check(between, site="site") == 0
        assert "only 32 permutations differ: all are made, P is not below 0.0625" in capsys.readouterr().out

    def test_a_subject_alone_at_its_site_is_told(self, desk, capsys):
        desk.table(changed(7, "site", "west"))
        assert desk.check(site="site") == 0
        assert "alone at their site, and never exchanged: S7" in capsys.readouterr().out


def test_few_permutations_are_counted_before_anything_is_computed(desk, capsys):
    desk.table(BASE[4:8])
    analysis = {"kind": "group", "name": "q", "column": "arm", "second": "b", "visit": "BL"}
    assert desk.check(analysis, min_n=4) == 0
    assert (
        "4 subjects (2 and 2); only 6 permutations differ: all are made, P is not below 0.333, and alpha is 0.05"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({"atlas_sha256": "b" * 64}, "more than one atlas"),
        ({"protocol": "t1rho-fse"}, "more than one protocol"),
        ({"registration_preset": "fast"}, "more than one registration"),
    ],
)
def test_results_that_differ_are_told_by_check(desk, capsys, versions, said):
    desk.result("r3", **versions)
    assert desk.check() == 2
    told = capsys.readouterr().err
    assert said in told
    assert "(lines 5)" in told


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "line 5: result.json is not of a result"),
        ({"status": "ok"}, "line 5: result.json is not of a result"),
        ({"status": "refused", "versions": {}, "reasons": [{"code": "MOTION"}]}, "line 5: S3: the exam was refused"),
    ],
)
def test_a_result_that_is_none_is_told_by_check(desk, capsys, content, said):
    desk.result("r3", content)
    assert desk.check() == 2
    assert said in capsys.readouterr().err


def test_a_broken_result_is_told_by_check(desk, capsys):
    (desk.folder / "r3" / "result.json").write_bytes(b'{"status": "ok", \xff')
    assert desk.check() == 2
    assert "line 5: result.json cannot be read" in capsys.readouterr().err


def test_a_huge_table_is_refused_in_a_few_lines(desk, capsys):
    rows = tuple(f"X{i},BL,nothing,1,2,3,4,north,a" for i in range(5_000))
    desk.table(rows)
    assert desk.check() == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 21
    assert told[-1].endswith("and 9979 more")


@pytest.mark.parametrize("name", ["cohort.csv", "plan.yaml"])
def test_a_file_that_is_not_there_is_told(desk, capsys, name):
    desk.check()
    (desk.folder / name).unlink()
    assert main(["cohort", "check", str(desk.folder / "plan.yaml")]) == 2
    assert name in capsys.readouterr().err


def later(row: list[str]) -> list[str]:
    """The row with a time in the fifth column: another one at the later visit."""
    return [*row[:4], "12" if row[1] == "M12" else "0", *row[5:]]


class TestChange:
    """Questions about two visits of the same subjects."""

    LATER = tuple(row.replace(",BL,r", ",M12,later") for row in BASE)
    CHANGE: ClassVar = {"kind": "time", "name": "q", "baseline": "BL", "later": "M12"}

    @pytest.fixture
    def visits(self, desk):
        for i in range(10):
            desk.result(f"later{i}")
        desk.table((*BASE, *self.LATER))
        return desk

    def test_the_change_of_a_column_needs_both(self, visits, capsys):
        visits.table((*changed(3, "odi", ""), *self.LATER[:4], self.LATER[4].replace(",68,", ",,"), *self.LATER[5:]))
        assert visits.check(self.CHANGE | {"variable": "odi-baseline"}) == 2  # nobody's has changed
        told = capsys.readouterr().err
        assert "change of odi: the same value (0) for all" in told
        rows = tuple(row.replace("north", "7").replace("south", str(i)) for i, row in enumerate(self.LATER))
        visits.table((*changed(3, "site", ""), *rows), HEADER.replace("site", "pain"))
        assert visits.check(self.CHANGE | {"variable": "arm"}) == 2
        assert "line 12: arm: 'a' is not a number" in capsys.readouterr().err

    def test_a_baseline_without_the_value_leaves_its_subject_out(self, visits, capsys):
        later = tuple(
            ",".join([*row.split(",")[:5], str(i * i), *row.split(",")[6:]]) for i, row in enumerate(self.LATER)
        )
        visits.table((*changed(3, "odi", ""), *later))
        assert visits.check(self.CHANGE | {"variable": "odi-baseline"}) == 0
        assert "9 subjects with both scans, 1 left out (line 5: S3: no odi)" in capsys.readouterr().out

    def test_a_mean_change_is_not_adjusted(self, visits, capsys):
        assert visits.check(self.CHANGE | {"covariates": ["age"]}) == 2
        assert "covariates without variable or column" in capsys.readouterr().err

    def test_subjects_without_a_follow_up_are_told(self, visits, capsys):
        visits.table((*BASE, *self.LATER[:6]))
        assert visits.check(self.CHANGE) == 0
        told = capsys.readouterr().out
        assert "6 subjects with both scans, 4 left out (S6: not both scans" in told
        assert "only 64 permutations differ: all are made" in told
        visits.table((*BASE, *self.LATER[:4]))
        assert visits.check(self.CHANGE) == 2
        assert "4 subjects have all values; min_n is 5" in capsys.readouterr().err

    def test_a_group_of_one_is_told(self, visits, capsys):
        rows = (*self.LATER[:9], self.LATER[9].replace(",b", ",c"))
        visits.table((*changed(9, "arm", "c"), *rows))
        assert visits.check(self.CHANGE | {"column": "arm", "second": "c"}) == 2
        assert "the second group has 1 subjects (S9); at least 2 are needed" in capsys.readouterr().err

    @pytest.mark.parametrize("column", ["arm", "site"])
    def test_a_subject_of_two_groups_or_sites_is_told(self, visits, capsys, column):
        """Two visits that say different things of one subject."""
        place = HEADER.split(",").index(column)
        cells = self.LATER[7].split(",")
        was, cells[place] = cells[place], "x"
        visits.table((*BASE, *self.LATER[:7], ",".join(cells), *self.LATER[8:]))
        course = {"kind": "slope", "name": "q", "time": "months"}
        header = HEADER.replace("bmi", "months")  # 22 to 28: any time will do, but for the later visit another
        told = f"{column}: S7 has '{was}' in line 9, 'x' in line 19; a subject has one"
        groups = {"column": "arm", "second": "b"} if column == "arm" else {}
        plan = {} if column == "arm" else {"site": "site"}
        assert visits.check(self.CHANGE | groups, **plan) == 2
        assert told in capsys.readouterr().err
        rows = (visits.folder / "cohort.csv").read_text().splitlines()[1:]
        visits.table(tuple(",".join(later(row.split(","))) for row in rows), header)
        assert visits.check(course | groups, **plan) == 2
        assert told in capsys.readouterr().err

    @pytest.mark.parametrize("kind", ["time", "slope"])
    def test_what_is_a_subjects_is_read_at_the_baseline(self, visits, capsys, kind):
        """Groups, sites and covariates stand in the rows of the baseline only."""
        rows = [row.split(",") for row in (*BASE, *self.LATER)]
        for row in rows[10:]:
            row[3], row[7], row[8] = "", "", ""
        visits.table(tuple(",".join(later(row)) for row in rows), HEADER.replace("bmi", "months"))
        analysis = self.CHANGE if kind == "time" else {"kind": "slope", "name": "q", "time": "months"}
        asked = analysis | {"column": "arm", "second": "b", "covariates": ["age"]}
        assert visits.check(asked, site="site") == 0
        assert "q at L4L5: 10 subjects" in capsys.readouterr().out
        rows[3][3] = ""
        visits.table(tuple(",".join(later(row)) for row in rows), HEADER.replace("bmi", "months"))
        assert visits.check(asked, site="site") == 0
        assert "1 left out (line 5: S3: no age)" in capsys.readouterr().out

    def test_scans_without_a_time_are_named(self, visits, capsys):
        rows = [row.split(",") for row in (*BASE, *self.LATER)]
        for index in range(10):
            visits.result(f"last{index}")
            rows.append([f"S{index}", "M24", f"last{index}", "40", "50", "1", "1", "north", "a"])
        for row in rows[10:20]:
            row[4] = "40"
        rows[13][4] = ""  # one of three scans
        rows[5][4] = rows[15][4] = rows[25][4] = "NA"  # all
        visits.table(tuple(",".join(row) for row in rows), HEADER.replace("bmi", "months"))
        assert visits.check({"kind": "slope", "name": "q", "time": "months"}) == 0
        told = capsys.readouterr().out
        assert "9 subjects with 26 scans, 2 left out" in told
        assert "line 15: S3 M12: no months" in told
        assert "S5: no two scans at different months (no months in lines 7, 17, 27)" in told

    def test_a_mean_change_tells_that_sites_are_not_adjusted_for(self, visits, capsys):
        assert visits.check(self.CHANGE, site="site") == 0
        assert "site is not adjusted for: the mean is that of all subjects" in capsys.readouterr().out
        assert visits.check(self.CHANGE | {"column": "arm", "second": "b"}, site="site") == 0
        assert "not adjusted for" not in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("n", "plan", "said"),
        [
            (5, {}, "only 32 permutations differ: all are made, P is not below 0.0625, and alpha is 0.05"),
            (6, {}, "only 64 permutations differ: all are made, P is not below 0.0312"),
            (
                10,
                {"inference": {"permutations": 10}},
                "only 11 permutations are made, P is not below 0.0909, and alpha",
            ),
        ],
    )
    def test_the_smallest_p_of_signs_is_two_of_all(self, visits, capsys, n, plan, said):
        """A pattern of signs and its opposite give the same absolute t."""
        visits.table((*BASE[:n], *self.LATER[:n]))
        assert visits.check(self.CHANGE, **plan) == 0
        told = capsys.readouterr().out
        assert said in told
        assert ("no permutation can show anything" in told) == ("alpha" in said)

    def test_paper_mode_takes_a_scan_as_a_unit(self, visits, capsys):
        asked = {key: value for key, value in VARIABLE.items() if key != "visit"}
        assert visits.check(asked) == 2
        assert "scans of one subject are not independent" in capsys.readouterr().err
        assert visits.check(asked, paper=True) == 0
        assert "20 subjects" in capsys.readouterr().out


def test_results_are_written_into_an_empty_folder_only(desk, capsys):
    desk.check()
    plan = str(desk.folder / "plan.yaml")
    for place in (desk.folder / "plan.yaml", desk.folder):
        assert main(["cohort", "run", plan, "--out", str(place)]) == 2
        assert "is no empty folder" in capsys.readouterr().err
