"""The analyses of a plan at its levels: which columns of the table each asks for, and how they are read."""

from dataclasses import dataclass

from config.cohort_plans import Asked, BetweenMaps, ByGroup, ByVariable, CohortPlan, OverTime, OverVisits
from processing.results import Level
from service.cohort.table import CohortError


@dataclass(frozen=True, slots=True)
class Question:
    """One analysis at one level: the columns it asks for, and what it is called."""

    asked: Asked
    level: Level

    def column(self, name: str) -> str:
        """A column's name at this level."""
        return name.replace("{level}", self.level.name)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns it needs."""
        match self.asked:
            case ByVariable(variable=variable, covariates=covariates):
                names = (variable, *covariates)
            case ByGroup(column=column, covariates=covariates):
                names = (column, *covariates)
            case OverTime(variable=variable, column=column, covariates=covariates):
                bare = None if variable is None else variable.removesuffix("-baseline")
                names = tuple(one for one in (bare, column) if one is not None) + covariates
            case OverVisits(time=time, variable=variable, column=column, covariates=covariates):
                names = (*(one for one in (variable, column) if one is not None), *covariates, time)
            case _:
                names = ()
        return tuple(self.column(name) for name in names)

    @property
    def has_variable(self) -> bool:
        """Maps are held against a column of the table.

        Raises:
            CohortError: covariates, and nothing that they could be adjusted for.
        """
        match self.asked:
            case BetweenMaps():
                return False
            case OverTime(variable=None, column=None) | OverVisits(variable=None, column=None):
                if self.asked.covariates:
                    raise CohortError("covariates without variable or column: a mean change is not adjusted")
                return False
            case _:
                return True

    @property
    def column_of_words(self) -> str | None:
        """The column that names groups, not numbers."""
        if isinstance(self.asked, ByGroup):
            return self.column(self.asked.column) if self.asked.second else None
        if isinstance(self.asked, OverTime | OverVisits) and self.asked.column is not None:
            return self.column(self.asked.column)
        return None

    @property
    def later_column(self) -> str | None:
        """The column that is read at the later visit; all others are read at the baseline."""
        variable = self.asked.variable if isinstance(self.asked, OverTime) else None
        return None if variable is None else self.column(variable.removesuffix("-baseline"))

    @property
    def is_mean_change(self) -> bool:
        """Whether the mean of changes, or of slopes, differs from zero."""
        return isinstance(self.asked, OverTime | OverVisits) and not self.has_variable

    @property
    def change_of(self) -> str | None:
        """The column whose change from baseline is asked for."""
        variable = self.asked.variable if isinstance(self.asked, OverTime) else None
        return self.later_column if variable is not None and variable.endswith("-baseline") else None


def questions(plan: CohortPlan) -> tuple[Question, ...]:
    """Every analysis at every level."""
    return tuple(Question(asked, Level[level]) for asked in plan.analyses for level in plan.levels)
