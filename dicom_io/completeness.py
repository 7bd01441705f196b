"""What tells, beside the full grid, that nothing of a scan is on its way: counts, and objects that hold it all."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from config.protocol_cards import ProtocolCard
from dicom_io.headers import ImageFacts
from dicom_io.missing_images import Awaited


@dataclass(frozen=True, slots=True)
class Arrived:
    """All images of an exam that have come, also those that are not used, by SeriesInstanceUID.

    ``known_counts``: how many objects a series has, by SeriesInstanceUID, as the source PACS or the sender says.
    """

    series: Mapping[str, Sequence[ImageFacts]]
    known_counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Count:
    """Whether nothing more will come, provided that the grid is full, and what is known to be still awaited.

    ``is_counted``: the headers themselves are the evidence.
    """

    is_evidence: bool
    awaited: Awaited
    is_counted: bool = False


def count(images: Sequence[ImageFacts], card: ProtocolCard, arrived: Arrived) -> Count:
    """Judge the images of one scan by what is known of the series they came in.

    Evidence is one of: the scanner's announced count of images or slices is reached; the source knows just as many
    objects of each series as have come; the card has an exact number of slices; multi-frame objects in which no slice
    can be lacking.
    Nothing is evidence against the source or the scanner naming more.
    """
    uids = sorted({one.series_uid for one in images})
    announced = _by_announcement([arrived.series[uid] for uid in uids])
    slices = _by_announced_slices(images, card)
    known = by_known_counts(uids, arrived)
    awaited = next((one.awaited for one in (known, announced, slices) if one.awaited.n_images), Awaited())
    is_exact = card.expected.min_slices == card.expected.max_slices
    is_counted = announced.is_evidence or slices.is_evidence or is_exact or _holds_all(images)
    return Count((is_counted or known.is_evidence) and not awaited.n_images, awaited, is_counted)


def _by_announcement(all_series: Sequence[Sequence[ImageFacts]]) -> Count:
    """ImagesInAcquisition (0020,1002) against what has come.

    It counts every image of a series, also phase images that are not used, or, where an anonymiser split a series, the
    images of all its parts. A count below what is there is no evidence of anything.
    """
    counts = []
    for images in all_series:
        values = {None if one.frame_number else one.images_in_acquisition for one in images}
        value = values.pop() if len(values) == 1 else None
        counts.append((len(images), value if value and value > 0 else None))
    n_arrived = sum(n for n, _ in counts)
    per_series = all(announced is not None and n == announced for n, announced in counts)
    in_all = {announced for _, announced in counts} == {n_arrived}
    if per_series or in_all:
        return Count(True, Awaited())
    in_one = {announced for _, announced in counts}
    of_all = next(iter(in_one)) if len(in_one) == 1 else None
    if of_all is not None and of_all > n_arrived:  # of a scan that was split, or, fewer for sure, of each part
        n_to_come = of_all - n_arrived
    else:
        n_to_come = sum(max(0, announced - n) for n, announced in counts if announced is not None)
    return Count(False, Awaited(n_to_come, "the scanner announced"))


def _by_announced_slices(images: Sequence[ImageFacts], card: ProtocolCard) -> Count:
    """Philips writes into each image how many slices the scan has; the card knows how many images that makes.

    A number below what is there is no evidence of anything.
    """
    numbers = {one.announced_slices for one in images}
    n_slices = numbers.pop() if len(numbers) == 1 else None
    n_to_come = (n_slices or 0) * max(len(card.times.distinct_ms), 1) - len(images)
    if n_slices is None or n_to_come < 0:
        return Count(False, Awaited())
    return Count(n_to_come == 0, Awaited(n_to_come, "the scanner announced"))


def by_known_counts(uids: Iterable[str], arrived: Arrived) -> Count:
    """What the source says of series. One that knows fewer objects than have come is still receiving: no evidence."""
    is_multi_frame = False
    reached, n_to_come = [], 0
    for uid in uids:
        images, known = arrived.series[uid], arrived.known_counts.get(uid)
        n_objects = len({one.sop_instance_uid for one in images})
        is_multi_frame |= n_objects < len(images)
        reached.append(known == n_objects)
        n_to_come += max(0, (known or 0) - n_objects)
    return Count(all(reached), Awaited(n_to_come, "the source or the sender lists", counts_objects=is_multi_frame))


def _holds_all(images: Sequence[ImageFacts]) -> bool:
    """Whether the objects are such that no slice can be lacking where the grid is full.

    One multi-frame object; all objects into which one was split; or objects that each hold every slice.
    """
    places: dict[str, set[tuple[float, ...]]] = {}
    objects = {one.sop_instance_uid: one for one in images}
    for one in images:
        places.setdefault(one.sop_instance_uid, set()).add(one.position)
    parts = {one.concatenation for one in objects.values()}
    if parts == {()}:
        return (
            all(one.number_of_frames > 1 for one in objects.values()) and len(set(map(frozenset, places.values()))) == 1
        )
    n_series = len({one.series_uid for one in images})
    return n_series == 1 and parts == {(number, len(objects)) for number in range(1, len(objects) + 1)}
