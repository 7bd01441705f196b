"""What was done, in sentences for a report: built from the plan, so that they say what was made and nothing else."""

from collections.abc import Iterator

from config.cohort_plans import Asked, BetweenMaps, ByGroup, ByVariable, CohortPlan, OverTime, OverVisits
from processing.cohort.inference import CONTROL_NAMES, Control
from processing.display import QUANTITY_NAMES
from processing.results import Quantity
from service.cohort.run import rules_of

_FISHER = "intervals are Fisher's"
_BONETT_WRIGHT = "intervals are those of Bonett and Wright"


def headline_of(plan: CohortPlan) -> Control:
    """The control that the figures outline; in paper mode none is asked for."""
    return Control.UNCORRECTED if plan.paper else Control(plan.inference.headline)


def how_asked(plan: CohortPlan, asked: Asked) -> str:
    """How one analysis was made: its statistic, its interval, what is adjusted for, and what changed places."""
    match asked:
        case BetweenMaps():
            first, second = (QUANTITY_NAMES[Quantity(one)] for one in plan.quantities)
            statistic = f"Pearson's correlation of {first} and {second} over subjects, voxel by voxel; {_FISHER}"
            if plan.site is not None:
                statistic += f"; the means of each {plan.site} are taken out of both maps and of the means of regions"
        case ByVariable(ranks=True, variable=variable):
            statistic = f"Spearman's correlation with {_name(variable)}{_adjusted(plan, asked)}, all in ranks"
            statistic += f"; {_BONETT_WRIGHT}"
        case ByVariable(variable=variable):
            statistic = f"{_correlation(plan, asked)} with {_name(variable)}{_adjusted(plan, asked)}; {_FISHER}"
        case ByGroup():
            statistic = _groups(plan, asked)
        case OverTime() | OverVisits():
            statistic = _of_changes(plan, asked)
    told = [f"{statistic}."]
    if plan.site is not None and not _is_mean(asked) and rules_of(plan).n_permutations:
        told.append(f"Subjects change places within their {plan.site} only.")
    return " ".join(told)


def how_corrected(plan: CohortPlan) -> Iterator[str]:
    """What allows for the number of voxels, and what the figures outline."""
    rules = rules_of(plan)
    clusters = f"Clusters form at a two-sided P of {rules.forming_p:g} and join at faces, edges and corners."
    false_discoveries = "Benjamini–Hochberg and Benjamini–Yekutieli"
    if plan.paper:
        yield (
            "As published, P values are not corrected for the number of voxels, and the figures outline uncorrected P"
            f" values. Bonferroni, and false discovery rates by {false_discoveries}, stand in the table beside them."
            f" {clusters}"
        )
        return
    family_wise = ["by Bonferroni"]
    if rules.n_permutations:
        more = ", of clusters' size and mass, and of threshold-free clusters" if rules.threshold_free else ""
        more = more or " and of clusters' size and mass"
        family_wise.append(f"by {rules.n_permutations:,} permutations of the largest t{more} ({_permuted(plan)})")
    if rules.random_fields:
        but = ", but between maps" if any(isinstance(one, BetweenMaps) for one in plan.analyses) else ""
        family_wise.append(f"by random field theory with smoothness from the residuals{but}")
    without = [
        what
        for what, is_made in (
            ("no permutations", rules.n_permutations),
            ("no random field theory", rules.random_fields),
        )
        if not is_made
    ]
    yield (
        f"Family-wise error was controlled within each map {', '.join(family_wise)}; false discoveries by"
        f" {false_discoveries}."
        + (f" There were {' and '.join(without)}." if without else "")
        + f" {clusters} Outlined in the figures: {CONTROL_NAMES[headline_of(plan)]}, at {rules.alpha:g}."
    )


def what_chance_finds(plan: CohortPlan, n_maps: int) -> str:
    """How much is to be expected in so many maps where nothing is there."""
    alpha, tested = plan.inference.alpha, f"{n_maps} maps were tested (analysis, level, quantity), each on its own"
    if headline_of(plan) is Control.UNCORRECTED:
        return (
            f"{tested}, and what is outlined is not corrected for voxels: where nothing is there, about"
            f" {100 * alpha:g} % of the voxels of each map have P ≤ {alpha:g}."
        )
    return (
        f"{tested}: where nothing is there, about {alpha * n_maps:.1f} show something at α = {alpha:g}, even when"
        " corrected for voxels."
    )


def _is_mean(asked: Asked) -> bool:
    return isinstance(asked, OverTime | OverVisits) and asked.variable is None and asked.column is None


def _name(column: str) -> str:
    return column.replace("_{level}", "").replace("{level}", "")


def _covariates(plan: CohortPlan, asked: Asked) -> list[str]:
    """What is adjusted for: covariates, and sites."""
    names = [_name(one) for one in getattr(asked, "covariates", ())]
    return names if plan.site is None else [*names, plan.site]


def _adjusted(plan: CohortPlan, asked: Asked) -> str:
    names = _covariates(plan, asked)
    return f", adjusted for {' and '.join(filter(None, (', '.join(names[:-1]), names[-1])))}" if names else ""


def _correlation(plan: CohortPlan, asked: Asked) -> str:
    return "Partial correlation" if _covariates(plan, asked) else "Pearson's correlation"


def _groups(plan: CohortPlan, asked: ByGroup | OverTime | OverVisits) -> str:
    if _covariates(plan, asked):
        test = f"compared by a regression with one variance{_adjusted(plan, asked)}"
    elif isinstance(asked, ByGroup) and asked.equal_variances:
        test = "compared by Student's test, with equal variances"
    else:
        test = "compared by Welch's test"
    return f"Groups of {_name(asked.column or '')} were {test}; intervals are of the difference"


def _of_changes(plan: CohortPlan, asked: OverTime | OverVisits) -> str:
    if isinstance(asked, OverTime):
        maps, where = f"The change of each subject, {asked.later} less {asked.baseline}", "the baseline"
        when = "" if asked.variable is None else f" at {asked.later}"
    else:
        visits = f" at {', '.join(asked.visits)}" if asked.visits else ""
        maps = f"The least-squares slope of each subject's scans{visits} over {_name(asked.time)}"
        where, when = "a subject's first scan", ""
    read = f"; groups, sites and covariates are read at {where}"
    if asked.column is not None:
        return f"{maps}. {_groups(plan, asked)}{read}"
    if asked.variable is not None:
        is_change = isinstance(asked, OverTime) and asked.variable.endswith("-baseline")
        variable = _name(asked.variable.removesuffix("-baseline") if is_change else asked.variable)
        told = f"the change of {variable}" if is_change else f"{variable}{when}"
        read = read if _covariates(plan, asked) else ""
        return f"{maps}. {_correlation(plan, asked)} with {told}{_adjusted(plan, asked)}; {_FISHER}{read}"
    return f"{maps}. Its mean against zero by Student's one-sample t"


def _permuted(plan: CohortPlan) -> str:
    """What changes places in the analyses of this plan."""
    ways: dict[str, None] = {}
    for one in plan.analyses:
        if _is_mean(one):
            ways["of a mean change, signs of subjects"] = None
        elif isinstance(one, BetweenMaps):
            ways["between maps, the subjects of one"] = None
        elif _is_welch(plan, one):
            ways["of groups, Welch's t"] = None
        else:
            ways["Freedman–Lane"] = None
    return "; ".join((*ways, "each once where fewer differ"))


def _is_welch(plan: CohortPlan, asked: Asked) -> bool:
    in_groups = isinstance(asked, ByGroup) or getattr(asked, "column", None) is not None
    is_pooled = isinstance(asked, ByGroup) and asked.equal_variances
    return in_groups and not is_pooled and not _covariates(plan, asked)
