"""Times from the order of acquisition, for scanners whose headers hold none: the protocol card knows the order.

Only the numbers are taken from the header, and slice positions must agree with them: a missing image leaves a hole and
never shifts the others. Where too few images are there to tell where the numbering begins, it is taken to begin at 1;
such a series has holes whichever way it is read, so it is never measured on that assumption.
"""

from collections import Counter
from collections.abc import Sequence
from math import gcd

from config.protocol_cards import Order, OrderKey
from dicom_io.headers import ImageFacts
from dicom_io.slice_places import group_by_slice
from processing.refusal import ReasonCode, UnsuitableInput

#: More slices than any card allows: where numbers run wild, the search for the number of slices ends here.
_MOST_SLICES = 1000

KEY_NAMES = {
    OrderKey.INSTANCE_NUMBER: "InstanceNumber",
    OrderKey.ACQUISITION_NUMBER: "AcquisitionNumber",
    OrderKey.TEMPORAL_POSITION: "TemporalPositionIdentifier",
}


def time_indices(images: Sequence[ImageFacts], order: Order) -> list[int]:
    """The index into ``order.times_ms`` of each image.

    InstanceNumber counts images through slices and times (the frames of one multi-frame object are counted by their
    own number); AcquisitionNumber and TemporalPositionIdentifier, and InstanceNumber of objects that hold a whole
    stack each, count the times alone.

    Raises:
        UnsuitableInput: ECHO_UNRESOLVED, when a number is absent or doubled, or numbers and slice positions contradict
            each other; GEOMETRY_INCONSISTENT, when positions are absent or contradict each other.
    """
    n_times = len(order.times_ms)
    name = KEY_NAMES[order.key]
    objects = {one.sop_instance_uid for one in images}
    if order.key is OrderKey.INSTANCE_NUMBER and any(one.concatenation for one in images):
        raise _unresolved("the order of frames in a concatenation of objects is not read")
    frames_count = order.key is OrderKey.INSTANCE_NUMBER and len(objects) == 1 and images[0].frame_number is not None
    numbers = [one.frame_number if frames_count else _number(one, order.key) for one in images]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        raise _unresolved(f"an image has no {name}, whose order the protocol card goes by")
    if order.key is not OrderKey.INSTANCE_NUMBER or (len(objects) < len(images) and not frames_count):
        return _counted_times(known, n_times, name)
    if len(set(known)) < len(known):
        doubled, n_images = Counter(known).most_common(1)[0]
        raise _unresolved(f"{n_images} images have {name} {doubled}: their order is not known")
    places: list[int] = group_by_slice(images)[0].tolist()
    if order.fastest == "time":
        return _time_fastest(known, places, n_times, name)
    return _slice_fastest(known, places, n_times, name)


def _number(facts: ImageFacts, key: OrderKey) -> int | None:
    if key is OrderKey.INSTANCE_NUMBER:
        return facts.instance_number
    return facts.acquisition_number if key is OrderKey.ACQUISITION_NUMBER else facts.temporal_position


def _counted_times(numbers: Sequence[int], n_times: int, name: str) -> list[int]:
    lowest, highest = min(numbers), max(numbers)
    first = 1 if lowest >= 1 and highest <= n_times else lowest
    if highest - first >= n_times:
        raise _unresolved(f"{name} runs from {lowest} to {highest}; the protocol card has {n_times} times")
    return [number - first for number in numbers]


def _time_fastest(numbers: Sequence[int], places: Sequence[int], n_times: int, name: str) -> list[int]:
    """Runs of ``n_times`` numbers lie at one place each. Where the runs begin is told by where the place changes."""
    for first in range(1, n_times + 1):
        runs = [(number - first) // n_times for number in numbers]
        if _are_one_to_one(runs, places):
            return [(number - first) % n_times for number in numbers]
    raise _unresolved(
        f"{name} contradicts the slice positions: images that lie at one place are not {n_times} numbers in a row"
    )


def _slice_fastest(numbers: Sequence[int], places: Sequence[int], n_times: int, name: str) -> list[int]:
    """One number after the other passes through all slices, then again for the next time."""
    of_place: dict[int, int] = {}
    step = 0  # what divides all distances between numbers at one place: the number of slices, or a multiple of it
    for number, place in zip(numbers, places, strict=True):
        step = gcd(step, number - of_place.setdefault(place, number))
    if step == 0:
        raise _unresolved(f"too few images so far to tell times by {name}: there is one image for each slice")
    lowest, highest = min(numbers), max(numbers)
    for n_slices in range(len(of_place), min(step, _MOST_SLICES) + 1):
        if step % n_slices or not _are_one_to_one([number % n_slices for number in numbers], places):
            continue
        for first in (1, lowest):
            if first <= lowest and (highest - first) // n_slices < n_times:
                return [(number - first) // n_slices for number in numbers]
    raise _unresolved(
        f"{name} contradicts the slice positions: it does not pass {n_times} times through {len(of_place)} slices"
    )


def _are_one_to_one(ones: Sequence[int], others: Sequence[int]) -> bool:
    pairs = set(zip(ones, others, strict=True))
    return len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})


def _unresolved(text: str) -> UnsuitableInput:
    return UnsuitableInput(ReasonCode.ECHO_UNRESOLVED, text)
