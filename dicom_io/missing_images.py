"""Images that a scan lacks, and how to say so to the person who can send them."""

from collections.abc import Sequence
from dataclasses import dataclass

from config.protocol_cards import ProtocolCard

#: How many groups of missing images, or places in a group, a text names before it only counts.
_NAMED = 6


@dataclass(frozen=True, slots=True)
class MissingImage:
    """A hole in the grid: the slice, counted from 1 along the normal from the first one there, and the card's time."""

    slice_number: int
    time_ms: float


@dataclass(frozen=True, slots=True)
class Awaited:
    """Images that something else than the grid says are still to come: how many, and who says so.

    ``counts_objects``: what is counted are objects of an unknown number of frames.
    """

    n_images: int = 0
    said_by: str = ""  # "the scanner announced", "the source or the sender lists"
    counts_objects: bool = False


def missing_text(
    card: ProtocolCard, missing: Sequence[MissingImage], n_images: int, n_slices: int, awaited: Awaited
) -> str:
    """What is missing, such as "98/100 images: missing TSL 40 ms at slices 7, 8"; ``missing`` must not be empty."""
    by_slice: dict[int, list[float]] = {}
    for one in missing:
        by_slice.setdefault(one.slice_number, []).append(one.time_ms)
    by_times: dict[tuple[float, ...], list[int]] = {}
    for number, times in by_slice.items():
        by_times.setdefault(tuple(sorted(times)), []).append(number)
    parts = [
        f"{_times_text(card, times)}{_slices_text(sorted(slices), n_slices)}" for times, slices in by_times.items()
    ]
    more = f"; and {len(parts) - _NAMED} more such groups" if len(parts) > _NAMED else ""
    if awaited.n_images and awaited.counts_objects:
        more += f"; {awaited.said_by} {awaited.n_images} more objects"
        awaited = Awaited()
    beyond = awaited.n_images - len(missing)
    rest = f"; {awaited.said_by} {beyond} more than that" if beyond > 0 else ""
    total = n_images + max(awaited.n_images, len(missing))
    return f"{n_images}/{total} images: missing {'; '.join(parts[:_NAMED])}{more}{rest}"


def awaited_text(n_images: int, awaited: Awaited) -> str:
    """What is missing where only a count tells: "77/84 images: the scanner announced 7 more"."""
    if awaited.counts_objects:
        return f"{n_images} images so far: {awaited.said_by} {awaited.n_images} more objects"
    return f"{n_images}/{n_images + awaited.n_images} images: {awaited.said_by} {awaited.n_images} more"


def _times_text(card: ProtocolCard, times_ms: Sequence[float]) -> str:
    """The times under the name of what they prepare; a time that T1rho and T2 share has none."""
    n_times = max(len(card.times.distinct_ms), 1)
    if len(times_ms) == n_times:
        return "" if n_times == 1 else "all times at "
    t1rho, t2 = set(card.times.t1rho_ms), set(card.times.t2_ms)
    groups = (
        ("", [time for time in times_ms if time in t1rho and time in t2]),
        ("TSL ", [time for time in times_ms if time not in t2]),
        ("TE ", [time for time in times_ms if time not in t1rho]),
    )
    texts = [f"{name}{', '.join(f'{time:g}' for time in times)} ms" for name, times in groups if times]
    return f"{' and '.join(texts)} at "


def _slices_text(numbers: Sequence[int], n_slices: int) -> str:
    if len(numbers) == 1:
        return f"slice {numbers[0]}"
    if len(numbers) == n_slices:
        return f"all {n_slices} slices"
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [text for run in runs for text in _run_texts(run)]
    more = f" and others, {len(numbers)} in all" if len(texts) > _NAMED else ""
    return f"slices {', '.join(texts[:_NAMED])}{more}"


def _run_texts(run: Sequence[int]) -> list[str]:
    return [f"{run[0]}-{run[-1]}"] if len(run) > 2 else [str(number) for number in run]
