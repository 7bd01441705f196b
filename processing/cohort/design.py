"""The design of an analysis as numbers: who is in it, what is looked at, what is adjusted for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]

#: A column that the others explain to this share of its length is called collinear.
COLLINEAR = 1e-8


class DesignError(ValueError):
    """The design cannot be analysed; the message names the row or column and the rule."""


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """One variable of interest and what is adjusted for, of n independent units.

    ``variable`` (n,); ``covariates`` (n, k), without the constant; ``names`` of the covariates; ``units``: what each
    row is, a subject and never a scan: a subject is in a design once.
    """

    variable: FloatArray
    covariates: FloatArray
    names: tuple[str, ...]
    units: tuple[str, ...]
    variable_name: str = "variable"

    @property
    def n(self) -> int:
        """Number of units."""
        return len(self.variable)

    @property
    def nuisance(self) -> FloatArray:
        """(n, k + 1): the constant, and the covariates centred and scaled."""
        centred = self.covariates - self.covariates.mean(axis=0)
        return np.column_stack([np.ones(self.n), centred / centred.std(axis=0)])


def make_design(
    variable: Sequence[float],
    covariates: Mapping[str, Sequence[float]] | None = None,
    *,
    units: Sequence[str] | None = None,
    variable_name: str = "variable",
) -> Design:
    """A checked design.

    Raises:
        DesignError: a value is missing, a column is constant or explained by the others, a unit is there twice, or
            there are too few units for what is asked.
    """
    columns = dict(covariates or {})
    x = np.asarray(variable, dtype=np.float64)
    named = tuple(units) if units is not None else tuple(f"row {index + 1}" for index in range(len(x)))
    if len(named) != len(x):
        raise DesignError(f"{variable_name}: {len(x)} values for {len(named)} units")
    twice = sorted(unit for unit, count in Counter(named).items() if count > 1)
    if twice:
        raise DesignError(f"{', '.join(twice)}: more than once; scans of one subject are not independent units")
    for name, values in {variable_name: x, **columns}.items():
        _check_column(name, np.asarray(values, dtype=np.float64), named)
    z = np.column_stack([np.asarray(one, np.float64) for one in columns.values()]) if columns else np.empty((len(x), 0))
    if len(x) - z.shape[1] - 2 < 1:
        raise DesignError(
            f"{len(x)} units are too few for {z.shape[1]} covariates: at least {z.shape[1] + 3} are needed"
        )
    design = Design(x, z, tuple(columns), named, variable_name)
    _check_collinear(design)
    return design


def _check_column(name: str, values: FloatArray, units: tuple[str, ...]) -> None:
    if values.shape != (len(units),):
        raise DesignError(f"{name}: {len(values)} values for {len(units)} units")
    missing = [unit for unit, value in zip(units, values, strict=True) if not np.isfinite(value)]
    if missing:
        raise DesignError(f"{name}: no value for {', '.join(missing)}")
    if np.ptp(values) == 0:
        raise DesignError(f"{name}: the same value ({values[0]:g}) for all units")


def _check_collinear(design: Design) -> None:
    columns = [(name, design.covariates[:, index]) for index, name in enumerate(design.names)]
    columns.append((design.variable_name, design.variable))
    basis = np.ones((design.n, 1)) / np.sqrt(design.n)
    for name, values in columns:
        centred = values - values.mean()
        rest = centred - basis @ (basis.T @ centred)
        if np.linalg.norm(rest) < COLLINEAR * np.linalg.norm(centred):
            raise DesignError(
                f"{name}: is a combination of the columns before it ({', '.join(design.names) or 'none'})"
            )
        basis = np.column_stack([basis, rest / np.linalg.norm(rest)])
