"""Which subjects may change places, or their sign, where nothing is there: all ways where they are few, else a sample.

Subjects change places within their block only. Two subjects of one block with the same row of the design are one and
the same to a permutation, so that the number of ways that differ is a multinomial coefficient for each block. Where no
more ways differ than were asked for, each is made once and P values are exact.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from processing.cohort.design import FloatArray

IntArray = npt.NDArray[np.int64]


class _Ways(ABC):
    """Ways of exchange: all of them where no more differ than are asked for, else so many at random."""

    __slots__ = ()
    n_asked: int

    @property
    @abstractmethod
    def n_distinct(self) -> int:
        """How many differ, the data as they are among them."""

    @property
    def is_exact(self) -> bool:
        """All of them are made."""
        return self.n_distinct <= self.n_asked + 1

    @property
    def n_made(self) -> int:
        """The data as they are among them."""
        return self.n_distinct if self.is_exact else self.n_asked + 1


@dataclass(frozen=True, slots=True, eq=False)
class Orders(_Ways):
    """Orders of the subjects: row ``i`` says whose row of the design each subject is given.

    ``blocks`` and ``labels`` (subjects,): see :func:`orders_of`.
    """

    blocks: IntArray
    labels: IntArray
    n_asked: int
    seed: int

    @property
    def n_distinct(self) -> int:
        """How many orders differ, the data as they are among them."""
        total = 1
        for block in np.unique(self.blocks):
            labels = self.labels[self.blocks == block]
            total *= math.factorial(len(labels)) // math.prod(math.factorial(one) for one in np.bincount(labels))
        return total

    def chunks(self, size: int) -> Iterator[IntArray]:
        """(at most ``size``, subjects), the data as they are first."""
        if self.is_exact:
            yield from _stacked(self._all(), size)
            return
        rng = np.random.default_rng(self.seed)
        groups = [np.flatnonzero(self.blocks == one) for one in np.unique(self.blocks)]
        for start in range(0, self.n_made, size):
            orders = np.tile(np.arange(len(self.blocks)), (min(size, self.n_made - start), 1))
            for group in groups:
                orders[:, group] = rng.permuted(orders[:, group], axis=1)
            if start == 0:
                orders[0] = np.arange(len(self.blocks))
            yield np.argsort(orders, axis=1)  # to permute the residuals is to permute all else backwards

    def _all(self) -> Iterator[IntArray]:
        groups = [np.flatnonzero(self.blocks == one) for one in np.unique(self.blocks)]
        ways = [list(_arrangements(self.labels[group].tolist())) for group in groups]
        for choice in itertools.product(*ways):
            order = np.empty(len(self.blocks), dtype=np.int64)
            for group, places in zip(groups, choice, strict=True):
                order[group] = group[places]
            yield order


@dataclass(frozen=True, slots=True, eq=False)
class Signs(_Ways):
    """Signs of the subjects, 1 or -1."""

    n_subjects: int
    n_asked: int
    seed: int

    @property
    def n_distinct(self) -> int:
        """How many patterns of signs there are, the data as they are among them."""
        return int(2**self.n_subjects)

    def chunks(self, size: int) -> Iterator[FloatArray]:
        """(at most ``size``, subjects), the data as they are first."""
        if self.is_exact:
            every = (np.array(one) for one in itertools.product((1.0, -1.0), repeat=self.n_subjects))
            yield from _stacked(every, size)
            return
        rng = np.random.default_rng(self.seed)
        for start in range(0, self.n_made, size):
            count = min(size, self.n_made - start)
            signs = rng.choice(np.array([-1.0, 1.0]), size=(count, self.n_subjects))
            if start == 0:
                signs[0] = 1.0
            yield signs


def orders_of(rows: FloatArray, n_asked: int, seed: int, blocks: npt.NDArray[np.int64] | None = None) -> Orders:
    """Orders of subjects within their blocks.

    Args:
        rows: of the design, (subjects, columns); subjects with the same row are interchangeable.
        n_asked: orders besides the data as they are.
        seed: of their choice.
        blocks: (subjects,) of whole numbers; None: all are of one.
    """
    labels = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
    of_one = np.zeros(len(rows), dtype=np.int64)
    return Orders(of_one if blocks is None else np.asarray(blocks, np.int64), labels, n_asked, seed)


def _arrangements(labels: list[int]) -> Iterator[list[int]]:
    """Every way to give the labels to the places that differs, as places that they come from; as they are first."""
    left = Counter(labels)
    sources = {label: [place for place, one in enumerate(labels) if one == label] for label in left}
    chosen: list[int] = []

    def go_on() -> Iterator[list[int]]:
        place = len(chosen)
        if place == len(labels):
            used: Counter[int] = Counter()
            places = []
            for label in chosen:
                places.append(sources[label][used[label]])
                used[label] += 1
            yield places
            return
        mine = labels[place]
        for label in (mine, *(one for one in left if one != mine)):  # its own first: the first way is the identity
            if left[label]:
                left[label] -= 1
                chosen.append(label)
                yield from go_on()
                chosen.pop()
                left[label] += 1

    return go_on()


def _stacked(rows: Iterator[Any], size: int) -> Iterator[Any]:
    while held := list(itertools.islice(rows, size)):
        yield np.stack(held)
