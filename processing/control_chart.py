"""Control charts of a QC phantom: what the first scans of a series tell about its later ones.

A series is of one scanner, software, coil and protocol. Its first scans set mean and SD of each vial (phase I);
later ones are judged against them: single vials far off, all vials off together, runs, and slow drift.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import stats

_Float64 = npt.NDArray[np.float64]

_ONE_SD, _TWO_SD, _THREE_SD = (float(2 * stats.norm.sf(z)) for z in (1, 2, 3))  # two-sided: 32, 4.6 and 0.27 %
_EWMA_WEIGHT = 0.2
_EARLY = 3  # scans that give a mean to be held against, before there are limits

VialKey = tuple[str, str]  # vial, quantity


class PhantomVerdict(StrEnum):
    """What is said of a phantom's scan."""

    OK = "ok"
    WARNING = "warning"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class ChartRules:
    """When a scan is warned of or held. Shares: of a vial's mean. ``min_scans``: set the limits."""

    warn_share: float = 0.03
    hold_share: float = 0.05
    min_scans: int = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one vial and quantity, or of all vials of a quantity together (values are then relative to 1).

    ``n``: scans that set them.
    """

    mean: float
    sd: float
    n: int

    def half_width(self, two_sided: float) -> float:
        """Half the width of the interval in which one further scan lies but for this probability.

        The prediction interval for a normal distribution of which ``n`` values are known: t·SD·sqrt(1 + 1/n).
        """
        return _quantile(two_sided, self.n) * self.sd * float(np.sqrt(1 + 1 / self.n))


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that a scan broke."""

    rule: str
    verdict: PhantomVerdict
    text: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """Of one scan. ``findings``: the gravest first."""

    verdict: PhantomVerdict
    findings: tuple[Finding, ...]
    sets_limits: bool  # one of the first scans

    @property
    def text(self) -> str:
        """In a line, for people: the gravest findings, and how many others there are."""
        first = [finding for finding in self.findings if finding.verdict is self.verdict]
        others = len(self.findings) - len(first)
        more = [f"{others} warning{'s' if others > 1 else ''} besides"] if others else []
        return "; ".join([*(finding.text for finding in first), *more])


@dataclass(frozen=True, slots=True, eq=False)
class Chart:
    """A series of scans of one phantom on one scanner, in order.

    ``values`` (scans,) by vial and quantity, ms. ``limits`` empty as long as the scans are too few. ``common`` by
    quantity (scans,): the mean over vials of value / mean. ``ewma`` by quantity (scans,), NaN while limits are being
    set. ``judgements``: one for each scan.
    """

    values: Mapping[VialKey, _Float64]
    limits: Mapping[VialKey, Limits]
    common: Mapping[str, _Float64]
    common_limits: Mapping[str, Limits]
    ewma: Mapping[str, _Float64]
    judgements: tuple[Judgement, ...]
    rules: ChartRules


def control_chart(scans: Sequence[Mapping[VialKey, float]], rules: ChartRules) -> Chart:
    """Judge every scan of a series by those that set its limits, and by what came just before it.

    "2 SD" and "3 SD" stand for two-sided probabilities of 4.6 % and 0.27 % for a scan as a whole: each of m vials and
    quantities is given 1 - (1 - p)^(1/m) (Šidák), and the interval is that of a further value. A scanner in order is
    then warned of as often as one that has a single vial and known limits.

    Rules on single vials: beyond 2 SD or ``warn_share`` a warning, beyond 3 SD or ``hold_share`` a hold. Rules on all
    vials of a quantity together, where a drift of the scanner shows first: the same limits; two scans in a row beyond 2
    SD on one side, hold; one beyond 2 SD on one side and the next on the other, warning; four in a row beyond 1 SD, or
    ten in a row, on one side, warning (Westgard, Clin Chem 1981;27:493-501); and an exponentially weighted mean (weight
    0.2; Roberts, Technometrics 1959;1:239-250) beyond 2 SD, warning, beyond 3 SD, hold.

    Before there are limits, a vial is held against the mean of the scans so far by the shares alone, from the fourth.

    Args:
        scans: in order; each the mean of every vial and quantity, ms; all with the same vials.
        rules: the action levels.

    Raises:
        ValueError: scans of different vials, or a value that is not positive.
    """
    if not scans:
        return Chart({}, {}, {}, {}, {}, (), rules)
    keys = sorted(scans[0])
    if any(sorted(scan) != keys for scan in scans):
        raise ValueError("scans of a series must have the same vials and quantities")
    table = np.array([[scan[key] for key in keys] for scan in scans], dtype=np.float64)
    if not (np.isfinite(table) & (table > 0)).all():
        raise ValueError("a vial's time must be a positive number")
    n = rules.min_scans
    has_limits = len(scans) >= n
    means = table[: n if has_limits else len(scans)].mean(axis=0)
    quantities = sorted({quantity for _, quantity in keys})
    relative = table / means
    common = {
        one: relative[:, [at for at, (_, quantity) in enumerate(keys) if quantity == one]].mean(axis=1)
        for one in quantities
    }
    limits = {key: _limits(table[:n, at]) for at, key in enumerate(keys)} if has_limits else {}
    common_limits = {one: _limits(values[:n]) for one, values in common.items()} if has_limits else {}
    ewma = {one: _ewma(values, common_limits.get(one)) for one, values in common.items()}
    judgements = []
    for at in range(len(scans)):
        if at < n:
            findings = _early_findings(keys, table[: at + 1], rules)
        else:
            findings = _vial_findings(keys, table[at], limits, rules)
            for one in quantities:
                findings += _common_findings(one, common[one], at, common_limits[one], len(quantities))
                findings += _ewma_findings(one, ewma[one], at, common_limits[one], len(quantities))
        judgements.append(_judged(findings, at < n))
    return Chart(
        values={key: table[:, at] for at, key in enumerate(keys)},
        limits=limits,
        common=common,
        common_limits=common_limits,
        ewma=ewma,
        judgements=tuple(judgements),
        rules=rules,
    )


def common_half_widths(chart: Chart, quantity: str) -> tuple[float, float]:
    """Of all vials of a quantity together, relative: half the widths of the limits of 2 SD and of 3 SD."""
    limits, n_charts = chart.common_limits[quantity], len(chart.common)
    return limits.half_width(shared(_TWO_SD, n_charts)), limits.half_width(shared(_THREE_SD, n_charts))


def ewma_half_widths(chart: Chart, quantity: str) -> tuple[float, ...]:
    """Half the widths of the limit of hold of the weighted mean, one for each scan after those that set the limits."""
    limits = chart.common_limits[quantity]
    level = shared(_THREE_SD, len(chart.common))
    n_after = len(chart.common[quantity]) - limits.n
    return tuple(ewma_half_width(limits, at, level) for at in range(1, n_after + 1))


def shared(two_sided: float, n_charts: int) -> float:
    """The probability for each of so many charts that makes this probability for any of them (Šidák)."""
    return float(-np.expm1(np.log1p(-two_sided) / n_charts))


@lru_cache(maxsize=256)
def _quantile(two_sided: float, n: int) -> float:
    """Of Student's t with n - 1 degrees of freedom."""
    return float(stats.t.isf(two_sided / 2, n - 1))


def _limits(values: _Float64) -> Limits:
    return Limits(float(values.mean()), float(values.std(ddof=1)), len(values))


def _ewma(values: _Float64, limits: Limits | None) -> _Float64:
    smoothed = np.full(len(values), np.nan)
    if limits is not None:
        last = limits.mean
        for at in range(limits.n, len(values)):
            last = _EWMA_WEIGHT * values[at] + (1 - _EWMA_WEIGHT) * last
            smoothed[at] = last
    return smoothed


def ewma_half_width(limits: Limits, n_after: int, two_sided: float) -> float:
    """Half the width of the interval of the weighted mean of ``n_after`` scans after those that set the limits.

    Its variance is SD²·λ/(2-λ)·(1-(1-λ)^2n), and that of the mean which it starts from and is held against, weighted.
    """
    forgotten = (1 - _EWMA_WEIGHT) ** n_after
    share = _EWMA_WEIGHT / (2 - _EWMA_WEIGHT) * (1 - forgotten**2) + (1 - forgotten) ** 2 / limits.n
    return _quantile(two_sided, limits.n) * limits.sd * float(np.sqrt(share))


def _early_findings(keys: Sequence[VialKey], table: _Float64, rules: ChartRules) -> list[Finding]:
    if len(table) <= _EARLY:
        return []
    return _share_findings(keys, table[-1], table[:-1].mean(axis=0), rules)


def _share_findings(keys: Sequence[VialKey], values: _Float64, means: _Float64, rules: ChartRules) -> list[Finding]:
    """One finding for all vials that are further from their means than a share."""
    shares = values / means - 1
    far = float(np.abs(shares).max())
    for limit, verdict in ((rules.hold_share, PhantomVerdict.HOLD), (rules.warn_share, PhantomVerdict.WARNING)):
        if far > limit:
            number = int((np.abs(shares) > limit).sum())
            at = int(np.abs(shares).argmax())
            furthest = f"{' '.join(keys[at])} {100 * shares[at]:+.1f} %"
            text = f"{number} of {len(keys)} vial times more than {100 * limit:g} % off their means, {furthest}"
            return [
                Finding("share", verdict, text if number > 1 else f"{furthest} off its mean (limit {100 * limit:g} %)")
            ]
    return []


def _vial_findings(
    keys: Sequence[VialKey], values: _Float64, limits: Mapping[VialKey, Limits], rules: ChartRules
) -> list[Finding]:
    found = _share_findings(keys, values, np.array([limits[key].mean for key in keys]), rules)
    verdicts = [
        _beyond(value - limits[key].mean, limits[key], len(keys)) for key, value in zip(keys, values, strict=True)
    ]
    for verdict in (PhantomVerdict.HOLD, PhantomVerdict.WARNING):
        odd = [at for at, one in enumerate(verdicts) if one is verdict]
        if odd:
            scores = [abs(values[at] - limits[keys[at]].mean) / limits[keys[at]].sd for at in odd]
            at = odd[int(np.argmax(scores))]
            one = limits[keys[at]]
            furthest = f"{' '.join(keys[at])} {values[at] - one.mean:+.2f} ms from {one.mean:.2f} (SD {one.sd:.2f})"
            number = f"{len(odd)} vial times {_name(verdict)}, " if len(odd) > 1 else f"{_name(verdict)}: "
            found.append(Finding("sd", verdict, number + furthest))
    return found


def _beyond(gap: float, limits: Limits, n_charts: int) -> PhantomVerdict | None:
    if abs(gap) > limits.half_width(shared(_THREE_SD, n_charts)):
        return PhantomVerdict.HOLD
    return PhantomVerdict.WARNING if abs(gap) > limits.half_width(shared(_TWO_SD, n_charts)) else None


def _name(verdict: PhantomVerdict) -> str:
    return "beyond 3 SD" if verdict is PhantomVerdict.HOLD else "beyond 2 SD"


def _common_findings(quantity: str, values: _Float64, at: int, limits: Limits, n_charts: int) -> list[Finding]:
    """The rules on all vials of a quantity together; only scans after those that set the limits count in a run."""
    gaps = values[limits.n : at + 1] - limits.mean
    found = []
    percent = f"all vials' {quantity} {100 * gaps[-1]:+.2f} %"
    verdict = _beyond(float(gaps[-1]), limits, n_charts)
    if verdict is not None:
        found.append(Finding("common", verdict, f"{percent} ({_name(verdict)} of {100 * limits.sd:.2f} %)"))
    two = limits.half_width(shared(_TWO_SD, n_charts))
    last = gaps[-2:]
    if len(last) == 2 and (np.abs(last) > two).all():
        if last[0] * last[1] > 0:
            found.append(Finding("2_2s", PhantomVerdict.HOLD, f"{percent}: two scans in a row beyond 2 SD"))
        else:
            text = f"{percent}: two scans in a row beyond 2 SD, on both sides"
            found.append(Finding("R_4s", PhantomVerdict.WARNING, text))
    one = limits.half_width(_ONE_SD)
    for rule, length, beyond, words in (("4_1s", 4, one, "beyond 1 SD"), ("10_x", 10, 0.0, "on one side")):
        run = gaps[-length:]
        if len(run) == length and (np.abs(run) > beyond).all() and abs(np.sign(run).sum()) == length:
            text = f"{percent}: {length} scans in a row {words}"
            found.append(Finding(rule, PhantomVerdict.WARNING, text))
    return found


def _ewma_findings(quantity: str, ewma: _Float64, at: int, limits: Limits, n_charts: int) -> list[Finding]:
    gap = float(ewma[at] - limits.mean)
    n_after = at + 1 - limits.n
    for level, verdict in ((_THREE_SD, PhantomVerdict.HOLD), (_TWO_SD, PhantomVerdict.WARNING)):
        if abs(gap) > ewma_half_width(limits, n_after, shared(level, n_charts)):
            text = f"slow drift of all vials' {quantity}: weighted mean {100 * gap:+.2f} % ({_name(verdict)})"
            return [Finding("ewma", verdict, text)]
    return []


def _judged(findings: Sequence[Finding], sets_limits: bool) -> Judgement:
    order = (PhantomVerdict.HOLD, PhantomVerdict.WARNING)
    ranked = tuple(sorted(findings, key=lambda finding: order.index(finding.verdict)))
    return Judgement(ranked[0].verdict if ranked else PhantomVerdict.OK, ranked, sets_limits)
