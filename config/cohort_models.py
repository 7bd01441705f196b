"""Models of a trial in a cohort's plan: repeated measures of a region, responders, missing visits."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from config.sections import Name, Section

Column = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]
Visit = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]
LevelName = Literal["L5S1", "L4L5", "L3L4", "L2L3", "L1L2"]
QuantityName = Literal["T1rho", "T2"]
RegionName = Literal["whole_disc", "nucleus", "anterior_annulus", "posterior_annulus"]


class Responding(Section):
    """Share of subjects whose change from baseline is beyond a limit."""

    visit: Visit = Field(description="One of the model's visits")
    direction: Literal["increase", "decrease", "either"] = "increase"
    limit_ms: float | None = Field(None, gt=0)
    limit_percent: float | None = Field(None, gt=0, description="Of the subject's baseline")
    precision: str | None = Field(
        None, description="A profile of precision.yaml, or a file of one's own: 95 % reference change values of it"
    )

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if sum(one is not None for one in (self.limit_ms, self.limit_percent, self.precision)) != 1:
            raise ValueError("give one of limit_ms, limit_percent and precision")
        return self

    @property
    def own_precision(self) -> Path | None:
        """The site's own file of precision; None where it is a shipped profile, or none."""
        if self.precision is None or not self.precision.endswith((".yaml", ".yml")):
            return None
        return Path(self.precision)


class MissingVisits(Section):
    """What becomes of the difference between groups where visits that are missing were worse than alike ones."""

    visit: Visit = Field(description="One of the model's visits")
    imputations: int = Field(200, ge=20, le=10_000)
    deltas_ms: tuple[float, ...] = Field(
        (), max_length=50, description="Added to what is imputed in groups other than the reference; () : chosen"
    )
    jump_to_reference: bool = Field(True, description="Also as if missing subjects had gone on as the reference group")


class VisitModel(Section):
    """Repeated measures of a region's mean with an unstructured covariance of the visits; one unit for each subject."""

    name: Name
    quantity: QuantityName
    region: RegionName = "whole_disc"
    response: Literal["change", "value"] = Field(
        "change", description="Change from baseline, the baseline times visit adjusted for; or the values themselves"
    )
    baseline: Visit | None = Field(None, description="Visit that changes are from")
    visits: tuple[Visit, ...] = Field(min_length=1, max_length=12, description="In the order of time")
    group: Column | None = Field(None, description="Column of groups; times visit")
    reference: str = Field("", description="Value of the group that others are compared with")
    covariates: tuple[Column, ...] = Field((), description="Columns of numbers, of the baseline scan")
    site: bool = Field(False, description="The plan's column of sites as a fixed term")
    levels: tuple[LevelName, ...] = Field((), description="() : the plan's")
    levels_as: Literal["each", "mean", "together"] = Field(
        "each",
        description="Discs of a subject are not independent. each: a model for each level; mean: of the mean over the"
        " levels; together: level times visit as the occasions of one unstructured covariance",
    )
    degrees_of_freedom: Literal["kenward-roger", "satterthwaite"] = "kenward-roger"
    responders: Responding | None = None
    missing: MissingVisits | None = None

    @model_validator(mode="after")
    def _visits_fit(self) -> Self:
        if len(set(self.visits)) < len(self.visits):
            raise ValueError("visits: one is named twice")
        if self.response == "change":
            if self.baseline is None:
                raise ValueError("a change needs a baseline")
            if self.baseline in self.visits:
                raise ValueError(f"the baseline {self.baseline!r} cannot be one of the visits of a change")
        elif self.baseline is not None and self.baseline not in self.visits:
            raise ValueError(f"the baseline {self.baseline!r} must be one of the visits of values")
        return self

    @model_validator(mode="after")
    def _groups_fit(self) -> Self:
        if (self.group is None) != (not self.reference):
            raise ValueError("group and reference go together")
        if self.levels_as != "each" and any("{level}" in one for one in (*self.covariates, self.group or "")):
            raise ValueError("a column for each level needs levels_as: each")
        return self

    @model_validator(mode="after")
    def _extras_fit(self) -> Self:
        for name, extra in (("responders", self.responders), ("missing", self.missing)):
            if extra is None:
                continue
            if self.response != "change":
                raise ValueError(f"{name}: only of a change")
            if self.levels_as == "together":
                raise ValueError(f"{name}: needs levels_as: each or mean, for one number a subject")
            if extra.visit not in self.visits:
                raise ValueError(f"{name}: {extra.visit!r} is none of the visits {', '.join(self.visits)}")
        if self.responders is not None and self.responders.precision is not None and self.levels_as != "each":
            raise ValueError("responders: a precision is known of single levels: needs levels_as: each")
        if self.missing is not None and self.group is None:
            raise ValueError("missing: needs groups")
        return self

    def with_files_in(self, folder: Path) -> Self:
        """The same, a relative file of the precision taken from ``folder``."""
        asked = self.responders
        if asked is None or asked.own_precision is None:
            return self
        moved = asked.model_copy(update={"precision": str(folder / asked.own_precision)})
        return self.model_copy(update={"responders": moved})
