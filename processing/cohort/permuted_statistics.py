"""The statistics that are permuted: each gives a map of t for every order, or signs, of the subjects.

All are told as t with a number of degrees of freedom that is the same for every voxel and order; ``size`` is
t^2 / (t^2 + df), which for a correlation is its square and needs no division by what is left over.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from processing.cohort.association import equivalent_t
from processing.cohort.design import Design, FloatArray

Rows = npt.NDArray[Any]


class PermutedStatistic(Protocol):
    """What permutations need of a statistic. ``rows``: orders or signs, (permutations, subjects)."""

    @property
    def n_voxels(self) -> int:
        """Of the map."""

    @property
    def df(self) -> int:
        """Degrees of freedom of t."""

    def size(self, rows: Rows, voxels: slice) -> npt.NDArray[Any]:
        """(permutations, voxels), in single precision where that is enough to rank."""

    def t(self, rows: Rows) -> FloatArray:
        """(permutations, voxels)."""


def size_of(t: FloatArray, df: int) -> FloatArray:
    """t^2 / (t^2 + df); 1 where t is infinite."""
    squared = np.square(t)
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(squared), 1.0, squared / (squared + df))


def t_of(size: FloatArray, df: int) -> FloatArray:
    """Absolute t of a size."""
    t: FloatArray = np.sqrt(df * size / np.maximum(1 - size, 1e-300))
    return t


@dataclass(frozen=True, slots=True, eq=False)
class PartialRegression:
    """t of the variable of a regression with nuisance, after Freedman and Lane.

    ``unit``: residuals of the reduced model, (subjects, voxels), of unit length for each voxel. ``variable``: what the
    nuisance leaves of it, of unit length; ``nuisance``: orthonormal columns without the constant, to which residuals
    are orthogonal in any order.
    """

    unit: FloatArray
    variable: FloatArray
    nuisance: tuple[FloatArray, ...]
    df: int

    @property
    def n_voxels(self) -> int:
        """Of the map."""
        return int(self.unit.shape[1])

    def size(self, rows: Rows, voxels: slice) -> npt.NDArray[np.float32]:
        """Squared partial correlations, in single precision."""
        part = self.unit[:, voxels].astype(np.float32)
        across: npt.NDArray[np.float32] = self.variable[rows].astype(np.float32) @ part
        np.square(across, out=across)
        if self.nuisance:
            rest = np.ones_like(across)
            for column in self.nuisance:
                projected = column[rows].astype(np.float32) @ part
                np.square(projected, out=projected)
                rest -= projected
            across /= np.maximum(rest, np.float32(1e-12), out=rest)
        return across

    def t(self, rows: Rows) -> FloatArray:
        """t statistics."""
        rest = 1 - sum(((column[rows] @ self.unit) ** 2 for column in self.nuisance), start=np.float64(0.0))
        r = (self.variable[rows] @ self.unit) / np.sqrt(np.maximum(rest, 1e-300))
        return _t_of_r(r, self.df)


@dataclass(frozen=True, slots=True, eq=False)
class OneSample:
    """t of a mean. ``unit``: changes, (subjects, voxels), of unit length for each voxel."""

    unit: FloatArray

    @property
    def n_voxels(self) -> int:
        """Of the map."""
        return int(self.unit.shape[1])

    @property
    def df(self) -> int:
        """Degrees of freedom."""
        return int(self.unit.shape[0]) - 1

    def size(self, rows: Rows, voxels: slice) -> npt.NDArray[np.float32]:
        """Squared cosine between the changes and a constant, in single precision."""
        across: npt.NDArray[np.float32] = rows.astype(np.float32) @ self.unit[:, voxels].astype(np.float32)
        np.square(across, out=across)
        across /= np.float32(rows.shape[1])
        return across

    def t(self, rows: Rows) -> FloatArray:
        """t statistics."""
        return _t_of_r((rows @ self.unit) / np.sqrt(rows.shape[1]), self.df)


@dataclass(frozen=True, slots=True, eq=False)
class WelchDifference:
    """Welch's t of two groups, as the t of n - 2 degrees of freedom that is as rare.

    Studentised so, permutations hold the error rate also where the groups differ in variance (Janssen 1997).
    ``centred``: (subjects, voxels), of unit length for each voxel; ``in_second``: 1 for the second group, else 0.
    """

    centred: FloatArray
    in_second: FloatArray

    @property
    def n_voxels(self) -> int:
        """Of the map."""
        return int(self.centred.shape[1])

    @property
    def df(self) -> int:
        """Degrees of freedom."""
        return len(self.in_second) - 2

    def size(self, rows: Rows, voxels: slice) -> FloatArray:
        """From t."""
        return size_of(self._t(rows, self.centred[:, voxels]), self.df)

    def t(self, rows: Rows) -> FloatArray:
        """Equivalent t statistics."""
        return self._t(rows, self.centred)

    def _t(self, rows: Rows, part: FloatArray) -> FloatArray:
        n = len(self.in_second)
        n2 = float(self.in_second.sum())
        n1 = n - n2
        chosen = self.in_second[rows]
        sum2, square2 = chosen @ part, chosen @ part**2
        sum1, square1 = part.sum(axis=0) - sum2, (part**2).sum(axis=0) - square2
        error1 = np.maximum(square1 - sum1**2 / n1, 0.0) / (n1 - 1) / n1
        error2 = np.maximum(square2 - sum2**2 / n2, 0.0) / (n2 - 1) / n2
        with np.errstate(divide="ignore", invalid="ignore"):
            total = error1 + error2
            t = np.nan_to_num((sum2 / n2 - sum1 / n1) / np.sqrt(total), nan=0.0)
            df = total**2 / (error1**2 / (n1 - 1) + error2**2 / (n2 - 1))
        return equivalent_t(t, np.nan_to_num(df, nan=1.0), self.df)


@dataclass(frozen=True, slots=True, eq=False)
class BetweenMaps:
    """t of the correlation over subjects of two maps; the subjects of the second change places.

    ``first`` and ``second``: (subjects, voxels), centred, within sites where there are any, and of unit length for each
    voxel; ``df``: subjects less 1 less the number of sites.
    """

    first: npt.NDArray[np.float32]
    second: npt.NDArray[np.float32]
    df: int

    @property
    def n_voxels(self) -> int:
        """Of the maps."""
        return int(self.first.shape[1])

    def size(self, rows: Rows, voxels: slice) -> npt.NDArray[np.float32]:
        """Squared correlations, in single precision."""
        squared: npt.NDArray[np.float32] = np.square(self._r(rows, voxels))
        return squared

    def t(self, rows: Rows) -> FloatArray:
        """t statistics."""
        return _t_of_r(self._r(rows, slice(None)).astype(np.float64), self.df)

    def _r(self, rows: Rows, voxels: slice) -> npt.NDArray[np.float32]:
        first, second = self.first[:, voxels], np.ascontiguousarray(self.second[:, voxels])
        r: npt.NDArray[np.float32] = np.stack([np.einsum("iv,iv->v", first, second[order]) for order in rows])
        return r


def partial_regression(maps: FloatArray, design: Design) -> PartialRegression:
    """Maps (subjects, voxels) on a design."""
    basis = np.linalg.qr(design.nuisance)[0]
    variable = design.variable - basis @ (basis.T @ design.variable)
    residuals = unit_columns(maps - basis @ (basis.T @ maps))
    unit = variable / np.linalg.norm(variable)
    return PartialRegression(residuals, unit, tuple(basis.T[1:]), design.n - basis.shape[1] - 1)


def unit_columns(values: FloatArray) -> FloatArray:
    """Each column of unit length; a column of zeros stays."""
    lengths = np.sqrt(np.einsum("ij,ij->j", values, values))
    unit: FloatArray = values / np.where(lengths > 0, lengths, 1.0)
    return unit


def _t_of_r(r: FloatArray, df: int) -> FloatArray:
    t: FloatArray = r * np.sqrt(df / np.maximum(1 - r * r, 1e-300))
    return t
