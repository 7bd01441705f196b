"""Profiles of precision: each shipped number has a source and says that it is borrowed; files are checked."""

import shutil
from pathlib import Path

import pytest

from config.precision_profiles import SHIPPED, load_profile, load_profiles
from config.sections import SettingsError
from config.trial_plans import ChangeRule, load_plan
from processing.change_limits import cv_of_log_sd
from processing.precision_profile import read_precision
from processing.results import LUMBAR_LEVELS, Level, Quantity, Region
from processing.visits import Cell

EXAMPLE = SHIPPED.parent / "trials" / "example.yaml"


def test_every_shipped_number_is_borrowed_and_says_from_where():
    for profile in load_profiles(SHIPPED):
        for entry in profile.entries:
            assert entry.borrowed, profile.name
            assert "20" in entry.source, entry  # the year of a publication
            assert entry.within_sd_ms is None


def test_the_default_profile_knows_every_cell():
    profile = read_precision(ChangeRule().precision)
    for level in LUMBAR_LEVELS:
        for region in Region:
            for quantity in Quantity:
                assert profile.of(Cell(level, region, quantity)) is not None
    known = profile.of(Cell(Level.L4L5, Region.NUCLEUS, Quantity.T1RHO))
    assert (cv_of_log_sd(known.within_sd_log), cv_of_log_sd(known.between_sd_log)) == pytest.approx((0.05, 0.0814))
    assert known.n_pairs is None


def test_the_profile_of_discs_has_no_t1rho():
    profile = read_precision("borrowed-disc-t2")
    assert profile.of(Cell(Level.L5S1, Region.NUCLEUS, Quantity.T1RHO)) is None
    assert cv_of_log_sd(profile.of(Cell(Level.L5S1, Region.NUCLEUS, Quantity.T2)).within_sd_log) == pytest.approx(0.101)


OWN = """
profiles:
  - name: own
    measured_on: 2026-02-01
    entries:
      - {quantity: T2, regions: [nucleus], within_cv: 0.04, n_pairs: 20, source: own test-retest, borrowed: false}
      - {quantity: T2, regions: [nucleus], levels: [L5S1], within_cv: 0.08, n_pairs: 20, source: own test-retest,
         borrowed: false}
"""


def own_file(folder: Path, text: str = OWN) -> Path:
    path = folder / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_level_s_own_precision_comes_before_that_of_all_levels(tmp_path):
    profile = read_precision(str(own_file(tmp_path)))
    assert not profile.borrowed
    for level, cv in ((Level.L5S1, 0.08), (Level.L4L5, 0.04)):
        found = profile.of(Cell(level, Region.NUCLEUS, Quantity.T2))
        assert cv_of_log_sd(found.within_sd_log) == pytest.approx(cv)


def test_a_plan_names_a_file_beside_it(tmp_path):
    own_file(tmp_path)
    plan = shutil.copy(EXAMPLE, tmp_path / "plan.yaml")
    with plan.open("a", encoding="utf-8") as stream:
        stream.write("change: {precision: own.yaml}\n")
    assert read_precision(load_plan(plan).change.precision).name == "own"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("within_cv: 0.04", "within_cv: 0"), "profiles.0.entries.0.within_cv"),
        (("borrowed: false}\n      -", "}\n      -"), "profiles.0.entries.0.borrowed: Field required"),
        (
            (
                "source: own test-retest,",
                "",
            ),
            "profiles.0.entries.0.source",
        ),
        (("n_pairs: 20", "pairs: 20"), "profiles.0.entries.0.pairs: unknown key; allowed here: "),
        (("levels: [L5S1], ", ""), "entries: two for T2 nucleus all"),
        (("[nucleus]", "[kernel]"), "profiles.0.entries.0.regions.0"),
        (("profiles:", "profile:"), "profile: unknown key"),
        (("- {", "- {{"), "is not YAML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, change, words):
    path = own_file(tmp_path, OWN.replace(*change, 1))
    with pytest.raises(SettingsError, match=r"own\.yaml") as told:
        load_profile(str(path))
    assert words in str(told.value)


def test_an_unknown_profile_is_told_with_those_there_are(tmp_path):
    with pytest.raises(SettingsError, match="no profile 'lumbar'; allowed: borrowed-cartilage, borrowed-cartilage-ge"):
        load_profile("lumbar")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_profile("none.yaml", tmp_path)
