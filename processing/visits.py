"""The frozen records of one subject's visits: how each was acquired, what was measured, and what has changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum

from processing.results import Level, Quantity, Region


@dataclass(frozen=True, slots=True)
class Acquisition:
    """How an exam was acquired, as far as its headers tell; "" or None where they are silent.

    ``acquired_at``: the scanner's own clock, local time without zone. ``matrix``: rows, columns. ``slice_normal``: unit
    LPS vector. ``spin_lock_hz``: of the protocol card or header.
    """

    manufacturer: str = ""
    model: str = ""
    device_serial: str = ""
    software_versions: str = ""
    receive_coil: str = ""
    protocol: str = ""  # name of the protocol card
    field_strength_t: float | None = None
    spin_lock_hz: float | None = None
    t1rho_times_ms: tuple[float, ...] = ()
    t2_times_ms: tuple[float, ...] = ()
    repetition_time_ms: float | None = None
    pixel_bandwidth_hz: float | None = None
    matrix: tuple[int, int] | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    slice_thickness_mm: float | None = None
    slice_spacing_mm: float | None = None
    n_slices: int | None = None
    slice_normal: tuple[float, float, float] | None = None
    acquired_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """Something about a visit that is not as at the baseline.

    ``hard``: change is not judged. ``widens``: the limits become those of another scanner (reproducibility).
    """

    what: str  # name of the field of Acquisition, or another stable word
    baseline: str
    visit: str
    hard: bool
    widens: bool
    text: str  # one sentence for people


@dataclass(frozen=True, slots=True)
class Cell:
    """One place in a subject's table: a level, a region and a quantity."""

    level: Level
    region: Region
    quantity: Quantity


#: The reason of an observation where no scan came.
NO_SCAN = "no scan"


@dataclass(frozen=True, slots=True)
class Observation:
    """What a cell was at a visit; ``value_ms`` None with the ``reason`` why there is none (never an imputed value).

    Of a visit without scan the reason is :data:`NO_SCAN`. ``day``: days from the subject's day zero.
    ``excluded_share``: voxels without a value, of all.
    """

    visit: str
    day: int
    value_ms: float | None
    sd_ms: float | None = None
    n: int = 0
    n_excluded: int = 0
    reason: str = ""

    @property
    def excluded_share(self) -> float:
        """Voxels without a value, of all; 0 where there is none."""
        total = self.n + self.n_excluded
        return self.n_excluded / total if total else 0.0


@dataclass(frozen=True, slots=True)
class Precision:
    """Repeatability of a quantity in a region, with where it is from (config/precision.yaml).

    ``within_sd_log``: SD of repeated measurements on the log scale (about the within-subject CV); ``within_sd_ms``: in
    ms. ``between_sd_log``: what another scanner, coil or software adds. ``n_pairs`` None: not known, so that no upper
    bound can be given. ``borrowed``: measured on other tissue or with another sequence.
    """

    quantity: Quantity
    region: Region
    within_sd_log: float
    within_sd_ms: float | None
    between_sd_log: float | None
    n_pairs: int | None
    source: str
    borrowed: bool
    level: Level | None = None


@dataclass(frozen=True, slots=True)
class PrecisionProfile:
    """What is known of the repeatability of measurements: one entry per quantity and region, perhaps per level."""

    name: str
    description: str
    entries: tuple[Precision, ...]
    measured_on: date | None = None

    @property
    def borrowed(self) -> bool:
        """Whether any of it was measured on other tissue or with another sequence."""
        return any(one.borrowed for one in self.entries)

    def of(self, cell: Cell) -> Precision | None:
        """What is known of a cell, of its own level before that of all levels; None where nothing is."""
        fitting = [
            one
            for one in self.entries
            if (one.quantity, one.region) == (cell.quantity, cell.region) and one.level in (cell.level, None)
        ]
        return max(fitting, key=lambda one: one.level is not None, default=None)


class ChangeVerdict(StrEnum):
    """What is said of a change. Neutral: never better or worse."""

    DECREASE = "decrease beyond measurement error"
    WITHIN = "within measurement error"
    INCREASE = "increase beyond measurement error"
    NOT_COMPARABLE = "not comparable"
    NOT_EVALUABLE = "not evaluable"
    MISSING = "no scan"

    @property
    def is_judged(self) -> bool:
        """Whether a change was judged at all."""
        return self in (ChangeVerdict.DECREASE, ChangeVerdict.WITHIN, ChangeVerdict.INCREASE)


@dataclass(frozen=True, slots=True)
class Change:
    """A cell at a visit against the baseline. Limits in ms around zero; None where no change is judged.

    ``basis``: how the limits came about, in words. ``reasons``: why it is not judged, or what to bear in mind.
    """

    cell: Cell
    visit: str
    baseline_ms: float | None
    value_ms: float | None
    delta_ms: float | None
    delta_percent: float | None
    lower_limit_ms: float | None
    upper_limit_ms: float | None
    verdict: ChangeVerdict
    is_primary: bool
    basis: str = ""
    reasons: tuple[str, ...] = ()
    details: Mapping[str, float] = field(
        default_factory=dict
    )  # e.g. sdc_ms, untreated_mean_delta_ms, slope_ms_per_year


@dataclass(frozen=True, slots=True)
class Slope:
    """How fast a cell changes over its comparable visits, the baseline among them; ms per year of 365.25 days.

    ``standard_error_ms_per_year`` and the limits follow from the precision alone (a straight line is not judged):
    a slope beyond them is more than measurement error.
    """

    cell: Cell
    n_visits: int
    ms_per_year: float
    standard_error_ms_per_year: float
    lower_limit_ms_per_year: float
    upper_limit_ms_per_year: float
    verdict: ChangeVerdict


@dataclass(frozen=True, slots=True)
class UntreatedControl:
    """The change of the treated level beyond the mean change of the subject's other levels, with its own limits.

    What moves all discs (hour, hydration, scanner, coil) cancels; a treatment of one level does not.
    """

    visit: str
    quantity: Quantity
    region: Region
    treated: Level
    untreated: tuple[Level, ...]
    treated_delta_ms: float
    untreated_mean_delta_ms: float
    difference_ms: float
    lower_limit_ms: float
    upper_limit_ms: float
    verdict: ChangeVerdict


@dataclass(frozen=True, slots=True)
class ChangeTable:
    """All changes of a subject, primary and exploratory, with what they are to be read against.

    ``n_primary`` and ``n_exploratory``: cells that were judged. The expected numbers of false flags are those of a
    subject that has not changed at all: cells x (1 - confidence). ``controls`` are empty where the treated level is
    not known or not to be shown. ``warnings``: what speaks against a verdict, in words. ``notes``: what else to know.
    """

    changes: tuple[Change, ...]
    n_primary: int
    n_exploratory: int
    expected_false_primary: float
    expected_false_exploratory: float
    slopes: tuple[Slope, ...] = ()
    controls: tuple[UntreatedControl, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
