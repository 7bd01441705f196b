"""Plans of cohorts: the example, and where files of a plan are looked for."""

from pathlib import Path

import pytest
import yaml

from config.cohort_plans import load_cohort_plan
from config.sections import SettingsError

EXAMPLE = Path(__file__).parents[2] / "config" / "cohorts" / "example.yaml"


def changed(tmp_path, **changes):
    content = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8")) | changes
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_example_is_a_plan_of_maps_and_of_a_model():
    plan = load_cohort_plan(EXAMPLE)
    assert len(plan.analyses) == 6
    (model,) = plan.models
    assert (model.group, model.levels_as, model.responders.limit_percent) == ("arm", "each", 15)


def test_a_file_of_the_precision_is_taken_from_the_folder_of_the_plan(tmp_path):
    (model,) = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))["models"]
    path = changed(tmp_path, models=[model | {"responders": {"visit": "M12", "precision": "ours.yaml"}}])
    assert load_cohort_plan(path).models[0].responders.precision == str(tmp_path / "ours.yaml")
    path = changed(tmp_path, models=[model | {"responders": {"visit": "M12", "precision": "borrowed-cartilage"}}])
    assert load_cohort_plan(path).models[0].responders.precision == "borrowed-cartilage"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"analyses": [], "models": []}, "give analyses, models, or both"),
        ({"quantities": ["T1rho"]}, "t1rho-t2: between needs two quantities; the plan has one"),
        ({"paper": True}, "no part of what was published"),
        ({"levels": ["L4L5"], "models": [{"levels": ["L5S1"]}]}, "L5S1: none of the plan's levels"),
        ({"models": [{"levels_as": "mean", "covariates": ["grade_{level}"]}]}, "a column for each level needs"),
        ({"models": [{"name": "odi"}]}, "two have the same name"),
        ({"models": [{"visits": ["BL", "M12"]}]}, "the baseline 'BL' cannot be one of the visits"),
        ({"models": [{"group": None}]}, "group and reference go together"),
        ({"models": [{"group": None, "reference": "", "responders": None}]}, "missing: needs groups"),
        ({"models": [{"seed": 4}]}, "seed"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path, changes, said):
    (model,) = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))["models"]
    changes = changes | ({"models": [model | one for one in changes["models"]]} if changes.get("models") else {})
    with pytest.raises(SettingsError, match=said):
        load_cohort_plan(changed(tmp_path, **changes))
