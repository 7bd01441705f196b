"""elastix ignores a misspelt parameter without a word; we do not."""

import itertools

import numpy as np
import pytest

from config.settings import SettingsError
from processing.atlas import load_atlas, shipped_atlases
from processing.elastix_parameters import (
    ELASTIX_FOLDER,
    KNOWN_NAMES,
    parameters_digest,
    read_parameters,
    registration_parameters,
    write_parameters,
)

FILES = sorted(ELASTIX_FOLDER.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_has_known_names_only_and_the_facts_that_matter(path):
    parameters = read_parameters(path)
    dimension = 3 if "3d" in path.stem else 2
    levels = int(parameters["NumberOfResolutions"][0])
    schedule = [int(factor) for factor in parameters["ImagePyramidSchedule"]]
    assert len(schedule) == levels * dimension
    discs = [disc for name in shipped_atlases() for disc in load_atlas(dimension, name).values()]
    grids = np.array([disc.mask.shape[-dimension:][::-1] for disc in discs])
    for factors in np.array(schedule).reshape(levels, dimension):
        assert (grids // factors).min() >= 4  # fewer: elastix crashes, or the affine collapses
    if dimension == 3:
        assert set(schedule[2::3]) == {1}  # an exam may have three slices
    assert parameters["ErodeMask"] == ("false",)
    assert parameters["UseDirectionCosines"] == ("true",)
    assert parameters["ImageSampler"] == ("Full",)
    assert parameters["FixedImageDimension"] == (str(dimension),)
    if "bspline" in path.stem:
        assert parameters["Metric"][1:] == ("TransformRigidityPenalty",)
        assert float(parameters["Metric1Weight"][0]) >= 0.3


def test_the_paper_preset_is_the_papers():
    for dimension in (2, 3):
        affine, bspline = registration_parameters(dimension, "paper", seed=7)
        assert affine["NumberOfResolutions"] == ("4",)
        assert bspline["FinalGridSpacingInVoxels"] == ("2",) * dimension
        assert bspline["MaximumNumberOfIterations"] == ("200",)
        assert bspline["Metric"][0] == "AdvancedMattesMutualInformation"
        assert bspline["Metric1Weight"] == ("0.77",)
        assert affine["RandomSeed"] == bspline["RandomSeed"] == ("7",)


def test_all_combinations_exist_and_no_file_is_unused():
    used = {
        f"{stage}_{dimension}d.txt" for dimension in (2, 3) for stage in ("affine", "bspline_fast", "bspline_paper")
    }
    assert {path.name for path in FILES} == used
    for dimension, preset in itertools.product((2, 3), ("fast", "paper")):
        registration_parameters(dimension, preset, seed=1)
    named = {name for path in FILES for name in read_parameters(path)}
    assert named <= KNOWN_NAMES


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("(NumberOfResolutionz 4)", "unknown elastix parameter NumberOfResolutionz"),
        ("(NumberOfResolutions 4", "must read"),
        ("NumberOfResolutions 4", "must read"),
        ("(NumberOfResolutions)", "must read"),
        ("(NumberOfResolutions 4)\n(NumberOfResolutions 2)", "given twice"),
    ],
)
def test_a_faulty_file_is_refused_with_line_and_reason(tmp_path, line, said):
    path = tmp_path / "faulty.txt"
    path.write_text(f"// a comment\n{line}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=said) as caught:
        read_parameters(path)
    assert "faulty.txt:" in str(caught.value)


def test_values_and_comments_are_read(tmp_path):
    path = tmp_path / "good.txt"
    path.write_text('\n// all\n(Metric "A b" "C") // two\n(Metric0Weight 0.5)\n', encoding="utf-8")
    assert read_parameters(path) == {"Metric": ("A b", "C"), "Metric0Weight": ("0.5",)}


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"no\.txt"):
        read_parameters(tmp_path / "no.txt")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_written_is_read_back(tmp_path, path):
    parameters = read_parameters(path)
    write_parameters(tmp_path / "copy.txt", parameters, "first line\nsecond line")
    assert read_parameters(tmp_path / "copy.txt") == parameters
    assert (tmp_path / "copy.txt").read_text(encoding="utf-8").startswith("// first line\n// second line\n(")


def test_a_site_replaces_the_files_it_has_and_no_others(tmp_path):
    shipped = registration_parameters(3, "fast", 1)
    write_parameters(tmp_path / "bspline_fast_3d.txt", shipped[1] | {"Metric1Weight": ("2.5",)}, "ours")
    affine, bspline = registration_parameters(3, "fast", 1, tmp_path)
    assert affine == shipped[0]
    assert bspline == shipped[1] | {"Metric1Weight": ("2.5",)}
    assert parameters_digest(3, "fast", tmp_path) != parameters_digest(3, "fast")
    assert parameters_digest(3, "paper", tmp_path) == parameters_digest(3, "paper")


def test_a_folder_without_parameter_files_is_not_passed_over(tmp_path):
    with pytest.raises(SettingsError, match=r"holds none of elastix' parameter files.*bspline_fast_3d.txt"):
        registration_parameters(3, "fast", 1, tmp_path)


@pytest.mark.parametrize("name", ["ImagePyramidSchedule", "GridSpacingSchedule"])
def test_a_schedule_that_elastix_would_replace_by_its_own_is_refused(tmp_path, name):
    shipped = ELASTIX_FOLDER / "bspline_fast_3d.txt"
    write_parameters(tmp_path / shipped.name, read_parameters(shipped) | {name: ("2", "2")}, "too short")
    with pytest.raises(SettingsError, match=f"{name} has 2 numbers; 2 resolutions in 3-D need 6"):
        registration_parameters(3, "fast", 1, tmp_path)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "affine_2d.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match=r"affine_2d.txt: is not text"):
        registration_parameters(2, "fast", 1, tmp_path)
