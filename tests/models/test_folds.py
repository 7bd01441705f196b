import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.training.folds import look_alikes, read_folds, split_folds, write_folds

COUNTS = st.dictionaries(st.text("abcdefgh0123456789", min_size=1, max_size=6), st.integers(1, 40), min_size=5)


@given(COUNTS, st.integers(2, 5), st.integers(0, 100))
def test_folds_are_a_partition_that_depends_on_names_and_seed_alone(counts: dict[str, int], folds: int, seed: int):
    groups = split_folds(counts, folds, seed)
    assert sorted(name for group in groups for name in group) == sorted(counts)
    assert len(groups) == folds
    assert all(groups)
    assert groups == split_folds(dict(reversed(counts.items())), folds, seed)
    sizes = [sum(counts[name] for name in group) for group in groups]
    # Largest first into the emptiest: no two folds differ by more than the largest subject.
    assert max(sizes) - min(sizes) <= max(counts.values())


def test_each_data_set_is_divided_evenly():
    counts = {f"{site}{index}": 10 for site in "ab" for index in range(10)}
    groups = split_folds(counts, 5, 3, strata={name: name[0] for name in counts})
    for group in groups:
        assert [sum(name.startswith(site) for name in group) for site in "ab"] == [2, 2]


def test_another_seed_gives_other_folds():
    counts = {f"s{index}": 10 for index in range(20)}
    assert split_folds(counts, 5, 1) != split_folds(counts, 5, 2)


@pytest.mark.parametrize(
    ("counts", "folds", "message"),
    [({"a": 1, "b": 1}, 3, "cannot fill"), ({"a": 1, "b": 0}, 2, "no slices of subject b"), ({"a": 1}, 1, "two")],
)
def test_impossible_folds_are_refused(counts: dict[str, int], folds: int, message: str):
    with pytest.raises(ValueError, match=message):
        split_folds(counts, folds, 1)


def test_folds_survive_the_file(tmp_path: Path):
    groups = split_folds({f"s{index}": index + 1 for index in range(7)}, 3, 4)
    write_folds(tmp_path / "folds.json", groups, 4)
    assert read_folds(tmp_path / "folds.json") == groups
    assert json.loads((tmp_path / "folds.json").read_text())["seed"] == 4
    assert [one.name for one in tmp_path.iterdir()] == ["folds.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": "discnode.folds/1", "folds": [["a", "b"], ["b"]]}', "subject b is in fold 0 and in fold 1"),
        ('{"format": "discnode.folds/1", "folds": [["S-01"], ["s1"]]}', "look like one subject"),
        ('{"format": "discnode.folds/1", "folds": [["a"], []]}', "none of them empty"),
        ('{"format": "discnode.folds/1", "folds": {"a": 1}}', "list of lists"),
        ('{"format": "other", "folds": []}', "discnode.folds/1"),
        ("{", "cannot be read"),
    ],
)
def test_a_fold_file_that_would_leak_a_subject_is_refused(tmp_path: Path, text: str, message: str):
    path = tmp_path / "folds.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_folds(path)


def test_names_that_mean_one_subject():
    assert look_alikes(["S01", "s-1", "S11", "1", "001", "x"]) == [("001", "1"), ("S01", "s-1")]
