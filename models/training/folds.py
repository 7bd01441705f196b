"""Folds of a cross-validation: whole subjects, so that no one is both learnt from and tested on.

A subject's series and follow-up visits count together: the unit that is divided is the subject, never the scan.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

#: The format that :func:`write_folds` writes; ``discnode evaluate --folds`` reads it too.
FORMAT = "discnode.folds/1"

Folds = tuple[tuple[str, ...], ...]


def split_folds(
    slice_counts: Mapping[str, int], folds: int, seed: int, *, strata: Mapping[str, str] | None = None
) -> Folds:
    """Divide the subjects of ``slice_counts`` (subject -> number of slices) into ``folds`` groups of similar size.

    Within a stratum (e.g. the data set a subject comes from) the largest subjects are placed first, each into the fold
    that holds the fewest slices of that stratum so far. The order among equals is drawn from ``seed``; the result
    depends on the subjects, their counts, the strata and the seed alone, not on the order of the mapping.

    Returns:
        The subjects of each fold, sorted. Fold k is what member k does not learn from.

    Raises:
        ValueError: fewer than two folds, fewer subjects than folds, or a subject without slices.
    """
    if folds < 2:
        raise ValueError(f"{folds} folds: at least two are needed")
    if len(slice_counts) < folds:
        raise ValueError(f"{len(slice_counts)} subjects cannot fill {folds} folds")
    empty = sorted(name for name, count in slice_counts.items() if count < 1)
    if empty:
        raise ValueError(f"no slices of subject {', '.join(empty)}")
    names = sorted(slice_counts)
    drawn = [names[index] for index in np.random.default_rng(seed).permutation(len(names))]
    stratum_of = {name: (strata or {}).get(name, "") for name in names}
    groups: list[list[str]] = [[] for _ in range(folds)]
    total = [0] * folds
    for stratum in sorted(set(stratum_of.values())):
        held = [0] * folds
        subjects = [name for name in drawn if stratum_of[name] == stratum]
        for name in sorted(subjects, key=lambda one: -slice_counts[one]):  # stable: equals stay as drawn
            place = min(range(folds), key=lambda k: (held[k], len(groups[k]), total[k], k))
            groups[place].append(name)
            held[place] += slice_counts[name]
            total[place] += slice_counts[name]
    return _refuse_empty(tuple(tuple(sorted(group)) for group in groups))


def _refuse_empty(folds: Folds) -> Folds:
    empty = [index for index, group in enumerate(folds) if not group]
    if empty:
        raise ValueError(f"fold {empty[0]} is empty")
    return folds


def write_folds(
    path: Path, folds: Folds, seed: int, *, images_sha256: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Write folds.json; it appears whole or not at all.

    ``images_sha256``: subject -> digests of its prepared exams, which tell a subject even if another data folder gives
    it another name, or gives its name to someone else.
    """
    held: dict[str, object] = {"format": FORMAT, "seed": seed, "folds": [list(group) for group in folds]}
    if images_sha256 is not None:
        held["images_sha256"] = {name: list(images_sha256[name]) for group in folds for name in group}
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def fold_of_images(path: Path) -> dict[str, int]:
    """Digest of a prepared exam -> the fold its subject is in; empty where folds.json holds no digests.

    Raises:
        ValueError: as :func:`read_folds`.
    """
    folds = read_folds(path)
    digests = json.loads(path.read_text(encoding="utf-8")).get("images_sha256", {})
    return {one: index for index, group in enumerate(folds) for name in group for one in digests.get(name, ())}


def read_folds(path: Path) -> Folds:
    """The folds of folds.json.

    Raises:
        ValueError: not such a file, a subject in two folds, or names that look like one subject in two folds.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as folds: {error}") from error
    if not isinstance(held, dict) or held.get("format") != FORMAT:
        raise ValueError(f"{path} is not in the format {FORMAT}")
    groups = held.get("folds")
    if not isinstance(groups, list) or not all(
        isinstance(group, list) and all(isinstance(name, str) for name in group) for group in groups
    ):
        raise ValueError(f"{path}: 'folds' is not a list of lists of subject names")
    folds = tuple(tuple(group) for group in groups)
    check_folds(folds, str(path))
    return folds


def check_folds(folds: Sequence[Sequence[str]], where: str) -> None:
    """Refuse folds that are no partition of people; ``where`` names them in the message.

    Raises:
        ValueError: fewer than two folds, an empty fold, a subject named twice, or names that look like one subject in
            two folds.
    """
    if len(folds) < 2 or not all(folds):
        raise ValueError(f"{where}: at least two folds, none of them empty, are needed")
    place: dict[str, int] = {}
    for index, group in enumerate(folds):
        for name in group:
            if name in place:
                raise ValueError(f"{where}: subject {name} is in fold {place[name]} and in fold {index}")
            place[name] = index
    for alike in look_alikes(place):
        if len({place[name] for name in alike}) > 1:
            raise ValueError(
                f"{where}: {' and '.join(alike)} look like one subject but are in different folds; give each subject "
                "one name, also in follow-ups"
            )


def look_alikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of different names that probably mean one subject: equal but for case, punctuation or leading zeros."""
    groups: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        # Letters and numbers in turn: S1-01 and s1_1 are alike, S11 and S1-1 are not.
        parts = re.findall(r"[^\W\d_]+|\d+", name.casefold())
        groups[tuple(part.lstrip("0") or "0" if part.isdigit() else part for part in parts)].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]
