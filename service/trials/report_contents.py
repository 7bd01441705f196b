"""What a subject's report is made from: the history, the pictures of its visits, their quality, its edition."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from processing.common_voxels import VisitMaps
from processing.results import Level, Quantity, Region
from processing.visit_images import VisitImages
from processing.visits import ChangeTable, PrecisionProfile
from service.trials.history import SubjectHistory, VisitRecord


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature under a version: what it decided, with which meaning, by whom and when."""

    decision: str
    meaning: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class EarlierVersion:
    """A version of the report that this one supersedes."""

    version: int
    made_at: datetime
    signatures: tuple[Signed, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportEdition:
    """Which version of a subject's report it is, when it was made (the same for every attempt), and by what."""

    version: int
    made_at: datetime
    inputs_digest: str
    software: str
    earlier: tuple[EarlierVersion, ...] = ()
    is_draft: bool = False  # made for a person to look at; no such version is on record


@dataclass(frozen=True, slots=True)
class VisitQuality:
    """What of a visit's quality its own result does not tell; None where it is not known.

    ``dice_before``: of each disc with the same one at the previous measured visit, after rigid alignment.
    ``phantom``: state of the QC phantom of the scanner then, in words.
    """

    dice_before: Mapping[Level, float] | None = None
    phantom: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class ReportContents:
    """Everything a report shows. ``images`` and ``quality`` by name of the visit; ``maps`` in atlas space.

    ``days_only``: no calendar date stands in it, only days from the subject's day zero; for de-identified destinations.
    """

    history: SubjectHistory
    table: ChangeTable
    images: Mapping[str, VisitImages]
    quality: Mapping[str, VisitQuality]
    edition: ReportEdition
    precision: PrecisionProfile
    days_only: bool = False
    maps: tuple[VisitMaps, ...] = ()

    @property
    def is_blinded(self) -> bool:
        """Whether the treated level is not to be told."""
        return not self.history.plan.blinding.show_treated_level

    @property
    def hidden_primary(self) -> int:
        """Primary cells that are declared for the treated level and not shown as such."""
        cells = self.history.plan.primary
        return sum(cell.level == "treated" for cell in cells) if self.history.treated_level is None else 0

    @property
    def shown_quantity(self) -> Quantity:
        """What the first page shows in colour: the first primary cell's quantity, else T2 where there is one."""
        measured = {cell.quantity for cell in self.history.observations}
        declared = [Quantity(cell.quantity) for cell in self.history.plan.primary]
        order = [*declared, Quantity.T2, Quantity.T1RHO]
        return next((one for one in order if one in measured), Quantity.T2)

    @property
    def shown_region(self) -> Region:
        """The part of the discs whose courses the first page shows: the first primary cell's, else the nucleus."""
        return next((Region(cell.region) for cell in self.history.plan.primary), Region.NUCLEUS)

    def day_text(self, day: date | None) -> str:
        """A date as this report shows it; "" for none."""
        if day is None:
            return ""
        if not self.days_only:
            return day.isoformat()
        zero = self.history.day_zero
        return "" if zero is None else f"day {(day - zero).days}"

    def window_text(self, visit: VisitRecord) -> str:
        """The window of a planned visit."""
        if visit.planned is None:
            return "not planned"
        first, last, zero = visit.planned.first_day, visit.planned.last_day, self.history.day_zero
        days = f"day {first}" if first == last else f"days {first} to {last}"
        if self.days_only or zero is None or first == last:
            return days
        return f"{days} ({zero + timedelta(days=first)} to {zero + timedelta(days=last)})"

    def is_over(self, visit: VisitRecord) -> bool:
        """Whether the window of a visit without scan had ended when the newest scan was made."""
        newest = max((one.scan_date for one in self.history.visits if one.scan_date is not None), default=None)
        zero = self.history.day_zero
        if visit.planned is None or newest is None or zero is None:
            return False
        return newest > zero + timedelta(days=visit.planned.last_day)
