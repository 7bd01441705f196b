"""How alike each disc is to itself at the visit before: what tells a failed outline, or another patient."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from processing.results import Level
from processing.rigid_followup import compare_discs
from processing.visit_images import VisitImages
from service.trials.visit_record import VisitRecord


def dice_with_visit_before(
    visits: Sequence[VisitRecord], images: Mapping[str, VisitImages]
) -> dict[str, dict[Level, float]]:
    """Of each visit with images but the first: level -> Dice with the visit scanned before it, aligned rigidly."""
    scanned = sorted(
        (one for one in visits if one.name in images), key=lambda one: (str(one.scan_date or ""), one.exam_id or 0)
    )
    found = {}
    for before, after in pairwise(scanned):
        earlier, later = images[before.name], images[after.name]
        pairs = compare_discs(earlier.levels, earlier.background.affine, later.levels, later.background.affine)
        found[after.name] = {one.level: one.dice for one in pairs}
    return found
