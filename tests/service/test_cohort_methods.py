"""What a report says of its methods is what its plan asks for, and nothing else."""

from pathlib import Path

import pytest

from config.cohort_plans import CohortPlan
from processing.cohort.inference import Control
from service.cohort.methods import headline_of, how_asked, how_corrected, what_chance_finds

RANKS = {"kind": "variable", "name": "a", "variable": "grade_{level}", "covariates": ["age", "bmi"], "ranks": True}
PLAIN = {"kind": "variable", "name": "a", "variable": "odi"}
GROUPS = {"kind": "group", "name": "a", "column": "arm", "second": "b"}
BETWEEN = {"kind": "between", "name": "a"}
CHANGE = {"kind": "time", "name": "a", "baseline": "BL", "later": "M12"}
SLOPE = {"kind": "slope", "name": "a", "time": "months", "visits": ["BL", "M6"]}


def plan_of(analysis=PLAIN, **changes):
    return CohortPlan.model_validate({"name": "p", "table": Path("t.csv"), "analyses": [analysis]} | changes)


@pytest.mark.parametrize(
    ("analysis", "changes", "said"),
    [
        (
            RANKS,
            {"site": "centre"},
            "Spearman's correlation with grade, adjusted for age, bmi and centre, all in ranks; intervals are those of"
            " Bonett and Wright. Subjects change places within their centre only.",
        ),
        (PLAIN, {}, "Pearson's correlation with odi; intervals are Fisher's."),
        (
            PLAIN,
            {"site": "centre", "inference": {"permutations": 0, "headline": "fdr_bh"}},
            "Partial correlation with odi, adjusted for centre; intervals are Fisher's.",
        ),
        (GROUPS, {}, "Groups of arm were compared by Welch's test; intervals are of the difference."),
        (
            GROUPS | {"equal_variances": True},
            {},
            "Groups of arm were compared by Student's test, with equal variances; intervals are of the difference.",
        ),
        (
            GROUPS | {"covariates": ["age"]},
            {},
            "Groups of arm were compared by a regression with one variance, adjusted for age; intervals are of the"
            " difference.",
        ),
        (
            BETWEEN,
            {"site": "centre"},
            "Pearson's correlation of T1ρ and T2 over subjects, voxel by voxel; intervals are Fisher's; the means of"
            " each centre are taken out of both maps and of the means of regions. Subjects change places within their"
            " centre only.",
        ),
        (
            CHANGE,
            {"site": "centre"},
            "The change of each subject, M12 less BL. Its mean against zero by Student's one-sample t.",
        ),
        (
            CHANGE | {"variable": "odi-baseline", "covariates": ["age"]},
            {},
            "The change of each subject, M12 less BL. Partial correlation with the change of odi, adjusted for age;"
            " intervals are Fisher's; groups, sites and covariates are read at the baseline.",
        ),
        (
            SLOPE | {"column": "arm", "second": "b"},
            {},
            "The least-squares slope of each subject's scans at BL, M6 over months. Groups of arm were compared by"
            " Welch's test; intervals are of the difference; groups, sites and covariates are read at a subject's first"
            " scan.",
        ),
    ],
)
def test_an_analysis_is_told_as_it_was_asked(analysis, changes, said):
    plan = plan_of(analysis, **changes)
    assert how_asked(plan, plan.analyses[0]) == said


def test_only_what_was_made_is_told():
    (everything,) = how_corrected(plan_of(inference={"threshold_free": True}))
    for told in (
        "5,000 permutations",
        "threshold-free",
        "Freedman–Lane",
        "random field theory with",
        "largest t, at 0.05",
    ):
        assert told in everything
    assert "There were no" not in everything
    (little,) = how_corrected(
        plan_of(inference={"permutations": 0, "random_fields": False, "headline": "uncorrected", "alpha": 0.01})
    )
    assert "There were no permutations and no random field theory." in little
    assert "Outlined in the figures: uncorrected, at 0.01." in little
    for told in ("Freedman", "smoothness", "threshold-free"):
        assert told not in little


@pytest.mark.parametrize(
    ("analysis", "said"),
    [
        (GROUPS, "(of groups, Welch's t; each once where fewer differ)"),
        (GROUPS | {"equal_variances": True}, "(Freedman–Lane; each once"),
        (CHANGE, "(of a mean change, signs of subjects; each once"),
        (BETWEEN, "(between maps, the subjects of one; each once"),
    ],
)
def test_only_what_changes_places_is_told(analysis, said):
    assert said in next(how_corrected(plan_of(analysis)))


def test_paper_mode_claims_no_correction():
    plan = plan_of(paper=True)
    assert headline_of(plan) is Control.UNCORRECTED
    (told,) = how_corrected(plan)
    assert "not corrected for the number of voxels" in told
    assert "permutations" not in told
    assert "even when corrected" not in what_chance_finds(plan, 10)
    assert "5 % of the voxels of each map have P ≤ 0.05" in what_chance_finds(plan, 10)
    assert "about 0.5 show something at α = 0.05, even when corrected" in what_chance_finds(plan_of(), 10)


@pytest.mark.parametrize(
    ("inference", "said"),
    [
        ({"permutations": 0}, "headline: max_t needs permutations; without, name fdr_bh or uncorrected"),
        ({"permutations": 0, "headline": "cluster_mass"}, "headline: cluster_mass needs permutations"),
        ({"headline": "threshold_free"}, "headline: threshold_free is made with threshold_free: true only"),
    ],
)
def test_a_headline_that_is_not_made_is_refused(inference, said):
    with pytest.raises(ValueError, match=said):
        plan_of(inference=inference)
