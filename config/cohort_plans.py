"""The plan of a cohort's analysis: which scans, which maps, which questions, which corrections; one file, hashed."""

import hashlib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from config.cohort_models import Column, LevelName, QuantityName, VisitModel
from config.sections import Name, Section
from config.yaml_files import read_section


class ByVariable(Section):
    """Voxel by variable: correlation over subjects, adjusted for covariates."""

    kind: Literal["variable"]
    name: Name
    variable: Column = Field(description="Column of the table; {level} in it stands for the level, as in grade_{level}")
    covariates: tuple[Column, ...] = Field((), description="Columns that are adjusted for")
    ranks: bool = Field(False, description="Spearman: variable, covariates and maps in ranks")
    visit: str = Field("", description="Scans of this visit; empty where each subject has one scan")


class ByGroup(Section):
    """Voxel by group: second minus first."""

    kind: Literal["group"]
    name: Name
    column: Column
    second: str = Field("", description="Value of the second group; all others are the first")
    above: float | None = Field(None, description="Or: numbers above this are the second group")
    covariates: tuple[Column, ...] = Field((), description="Adjusted for, with one variance for both groups")
    equal_variances: bool = Field(False, description="Student's test in place of Welch's")
    visit: str = ""

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if bool(self.second) == (self.above is not None):
            raise ValueError("give either second (a value) or above (a number)")
        return self


class BetweenMaps(Section):
    """Voxel by voxel: T1rho against T2 of the same subjects."""

    kind: Literal["between"]
    name: Name
    visit: str = ""


def _check_one_question(variable: str | None, column: str | None, second: str) -> None:
    """Of a change or a slope."""
    if variable is not None and column is not None:
        raise ValueError("give variable or column, not both")
    if (column is None) != (not second):
        raise ValueError("column and second go together")


class OverTime(Section):
    """Voxel by time: the change of each subject; against a variable or between groups where one is named.

    Groups, sites and covariates are read at the baseline, as those of models; the later row may leave them empty. Only
    the variable is read at the later visit.
    """

    kind: Literal["time"]
    name: Name
    baseline: str
    later: str
    variable: Column | None = Field(None, description="Column at the later visit; '-baseline' appended: its change")
    column: Column | None = Field(None, description="Column of groups, as it is at the baseline")
    second: str = Field("", description="Value of the second group")
    covariates: tuple[Column, ...] = Field((), description="As they are at the baseline")

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        _check_one_question(self.variable, self.column, self.second)
        if self.baseline == self.later:
            raise ValueError("baseline and later are the same visit")
        return self


class OverVisits(Section):
    """Voxel by time over any number of visits: the slope of each subject; against a variable or between groups.

    Columns are read at a subject's first scan that has a time, even where it has no map; other rows may leave groups,
    sites and covariates empty.
    """

    kind: Literal["slope"]
    name: Name
    time: Column = Field(description="Column with the time of each scan, as months")
    visits: tuple[str, ...] = Field((), description="Scans of these visits; empty: all")
    variable: Column | None = Field(None, description="Column, as it is at a subject's first scan")
    column: Column | None = Field(None, description="Column of groups, as it is at a subject's first scan")
    second: str = Field("", description="Value of the second group")
    covariates: tuple[Column, ...] = Field((), description="As they are at a subject's first scan")

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        _check_one_question(self.variable, self.column, self.second)
        if len(self.visits) == 1:
            raise ValueError("one visit has no slope")
        return self


Asked = ByVariable | ByGroup | BetweenMaps | OverTime | OverVisits
Analysis = Annotated[Asked, Field(discriminator="kind")]


class Inferring(Section):
    """Multiplicity."""

    alpha: float = Field(0.05, gt=0, lt=0.5)
    forming_p: float = Field(0.001, gt=0, lt=0.1, description="Two-sided P of a voxel from which clusters form")
    permutations: int = Field(
        5000, ge=0, le=1_000_000, description="Besides the data as they are; all once where fewer differ; 0: none"
    )
    threshold_free: bool = Field(False, description="Threshold-free cluster enhancement, too")
    random_fields: bool = Field(True, description="Random field theory, too")
    headline: Literal["max_t", "cluster_mass", "cluster_size", "threshold_free", "fdr_bh", "uncorrected"] = Field(
        "max_t", description="The control that the figures outline; it must be one that is made"
    )

    @model_validator(mode="after")
    def _headline_is_made(self) -> Self:
        if self.headline not in ("fdr_bh", "uncorrected") and not self.permutations:
            raise ValueError(f"headline: {self.headline} needs permutations; without, name fdr_bh or uncorrected")
        if self.headline == "threshold_free" and not self.threshold_free:
            raise ValueError("headline: threshold_free is made with threshold_free: true only")
        return self


class CohortPlan(Section):
    """One analysis of a cohort."""

    name: Name
    table: Path = Field(
        description="CSV file, a row for each scan: subject, visit, result, and columns of numbers and words"
    )
    levels: tuple[LevelName, ...] = Field(("L5S1", "L4L5", "L3L4", "L2L3", "L1L2"), min_length=1)
    quantities: tuple[QuantityName, ...] = Field(("T1rho", "T2"), min_length=1)
    analyses: tuple[Analysis, ...] = Field((), description="Voxel by voxel")
    models: tuple[VisitModel, ...] = Field((), description="Of the means of regions, over visits")
    min_n: int = Field(5, ge=3, le=100_000, description="Fewer subjects at a voxel: it has no number")
    site: Column | None = Field(
        None,
        description="Column of sites: adjusted for, and subjects are exchanged within a site only; mean changes and"
        " mean slopes are not adjusted",
    )
    inference: Inferring = Inferring()
    paper: bool = Field(
        False,
        description="As published: T1rho and T2 ceilings, uncorrected P values, scans of one subject as independent."
        " Every output says so",
    )
    seed: int = Field(1, ge=0, le=2**32 - 1)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [one.name for one in (*self.analyses, *self.models)]
        if not names:
            raise ValueError("give analyses, models, or both")
        if len(set(names)) < len(names):
            raise ValueError("analyses, models: two have the same name")
        return self

    @model_validator(mode="after")
    def _two_quantities_are_there(self) -> Self:
        for one in self.analyses:
            if isinstance(one, BetweenMaps) and len(set(self.quantities)) < 2:
                raise ValueError(f"analyses: {one.name}: between needs two quantities; the plan has one")
        return self

    @model_validator(mode="after")
    def _models_fit(self) -> Self:
        if self.paper and self.models:
            raise ValueError("models: are no part of what was published; leave them out of paper mode")
        for one in self.models:
            if one.quantity not in self.quantities:
                raise ValueError(f"models: {one.name}: {one.quantity} is none of the plan's quantities")
            others = [level for level in one.levels if level not in self.levels]
            if others:
                raise ValueError(f"models: {one.name}: {', '.join(others)}: none of the plan's levels")
            if one.site and self.site is None:
                raise ValueError(f"models: {one.name}: site: the plan names no column of sites")
        return self


def load_cohort_plan(path: Path) -> CohortPlan:
    """Read and check a plan (YAML). Relative paths in it are taken from its folder.

    Raises:
        SettingsError: naming file, key, what was found and what is allowed.
    """
    folder = path.resolve().parent
    plan = read_section(path, CohortPlan).with_paths_in(folder)
    return plan.model_copy(update={"models": tuple(one.with_files_in(folder) for one in plan.models)})


def cohort_plan_sha256(path: Path) -> str:
    """SHA-256 of a plan's file, byte by byte: it stands in every output."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
