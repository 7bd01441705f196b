"""Trial plans: one file per trial says who is followed, when, what is compared with what, and where results may go.

A plan never holds the arm of a subject, nor which level was treated: the treated levels are in a file of their own
(``treated_levels``), which only the reports and exports that are allowed to show them read.
"""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import Field, StringConstraints, field_validator, model_validator

from config.deidentification import Deidentification
from config.release import Release as Release
from config.sections import Name, Section, SettingsError
from config.settings import Repeats
from config.yaml_files import parse_section

#: What the trial calls its protocol, sites, subjects and visits: DICOM's Clinical Trial identifiers are Long Strings.
TrialText = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64, pattern=r"^[^\\\x00-\x1f]+$")
]
QuantityName = Literal["T1rho", "T2"]
RegionName = Literal["whole_disc", "nucleus", "anterior_annulus", "posterior_annulus"]
LevelName = Literal["L5S1", "L4L5", "L3L4", "L2L3", "L1L2"]


class Site(Section):
    """One imaging site. The time zone tells which clock its scanner shows."""

    id: TrialText = Field(description="ClinicalTrialSiteID (0012,0030)")
    name: str = Field("", description="Its name, for people")
    time_zone: str = Field("UTC", description="IANA name, such as Europe/Paris: the clock of its scanner")

    @field_validator("time_zone")
    @classmethod
    def _zone_is_known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"{value!r} is no IANA time zone, such as Europe/Paris") from error
        return value


class Visit(Section):
    """A planned visit, and the days in which its scan counts, from day zero of the subject."""

    name: TrialText = Field(description="ClinicalTrialTimePointID (0012,0050), such as BL or M12")
    day: int = Field(ge=-3650, le=36500, description="Planned day, from day zero")
    before_days: int = Field(14, ge=0, le=3650, description="The scan may be so many days earlier")
    after_days: int = Field(14, ge=0, le=3650, description="The scan may be so many days later")
    baseline: bool = Field(False, description="Later visits are compared with this one; exactly one visit is it")

    @property
    def first_day(self) -> int:
        """The first day of its window."""
        return self.day - self.before_days

    @property
    def last_day(self) -> int:
        """The last day of its window."""
        return self.day + self.after_days


class PrimaryCell(Section):
    """What the trial declared, in advance, to look at first."""

    quantity: QuantityName
    region: RegionName = "nucleus"
    level: LevelName | Literal["treated"] = "treated"
    visits: tuple[TrialText, ...] = Field((), description="Names of visits; empty = every visit after the baseline")


class Acceptance(Section):
    """How far an acquisition may lie from the baseline's: soft differences are deviations, hard ones not comparable."""

    min_slices: int = Field(3, ge=1, le=200, description="Fewer slices: hard")
    time_of_day_h: float = Field(2.0, gt=0, le=12, description="Hours on the clock from the baseline's: soft beyond")
    geometry_share: float = Field(
        0.05, gt=0, le=1, description="Share by which FOV, pixel and thickness may differ: soft beyond"
    )
    tilt_deg: float = Field(5.0, gt=0, le=45, description="Degrees between the slice normals: soft beyond")
    time_tolerance_ms: float = Field(
        0.5, ge=0, le=5, description="TSL and preparation TE may differ so much: hard beyond"
    )
    max_excluded_share: float = Field(
        0.5, gt=0, le=1, description="More voxels of a region without a value: not evaluable"
    )


class ChangeRule(Section):
    """How a change is judged."""

    limit: Literal["rcv", "sdc"] = Field("rcv", description="rcv: asymmetric, on the log scale; sdc: in ms, symmetric")
    precision: str = Field(
        "borrowed-cartilage", description="Name of a profile in precision.yaml, or path of one's own file"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of the limits")
    upper_bound: bool = Field(True, description="Use the upper confidence bound of the precision where n is known")
    voxels: Literal["common", "each"] = Field(
        "common", description="common: the voxels that have a value at all visits"
    )


class Blinding(Section):
    """What readers and sites may not see."""

    show_treated_level: bool = Field(False, description="Reports to destinations name the treated level")
    withhold_site_reports: bool = Field(True, description="No report leaves before `discnode trial unblind`")
    readers: bool = Field(True, description="Who edits masks sees one visit at a time, by reading ID, in random order")


class PhantomRule(Section):
    """How scans of the QC phantom are told from subjects, and what holds them to account."""

    patient_id_pattern: str = Field("(?i)^(qc|qa)[-_ ]", description="PatientID of a phantom: a regular expression")
    every_days: int = Field(31, ge=1, le=366, description="One is expected so often")
    near_visit_days: int = Field(30, ge=1, le=366, description="A visit without one so near is a soft deviation")
    warn_share: float = Field(0.03, gt=0, le=1, description="A vial so far from its mean, or 2 SD: warning")
    hold_share: float = Field(0.05, gt=0, le=1, description="A vial so far, or 3 SD: new subject reports are held")
    min_scans: int = Field(10, ge=3, le=1000, description="Scans that set the limits of a chart")

    @field_validator("patient_id_pattern")
    @classmethod
    def _is_a_pattern(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value


class ExportRule(Section):
    """What exports may show beyond pseudonyms and days."""

    real_dates: bool = Field(False, description="The dates of scans; else only days from day zero")


class TrialPlan(Section):
    """One trial."""

    protocol_id: TrialText = Field(description="ClinicalTrialProtocolID (0012,0020)")
    name: str = Field("", max_length=64, description="ClinicalTrialProtocolName (0012,0021)")
    sponsor: str = Field("", max_length=64, description="ClinicalTrialSponsorName (0012,0010)")
    coordinating_center: str = Field("", max_length=64, description="ClinicalTrialCoordinatingCenterName (0012,0060)")
    sites: tuple[Site, ...] = Field(min_length=1)
    subject_pattern: str = Field(r"^[A-Za-z0-9._-]{1,32}$", description="Form of a subject's ID: a regular expression")
    enrolment: Literal["open", "listed"] = Field(
        "open", description="open: a subject is made by its first exam; listed: only of those in the subjects' table"
    )
    day_zero: Literal["baseline_scan", "given"] = Field(
        "baseline_scan", description="baseline_scan: day of the baseline; given: column day_zero of the subjects' table"
    )
    visits: tuple[Visit, ...] = Field(min_length=1, description="In order")
    protocol: str = Field(description="Name of the protocol card of the measured scan")
    treated_levels: Path | None = Field(None, description="CSV file (subject,level), kept apart from readers")
    primary: tuple[PrimaryCell, ...] = Field((), description="Declared in advance; everything else is exploratory")
    acceptance: Acceptance = Acceptance()
    change: ChangeRule = ChangeRule()
    repeats: Repeats = Field(
        Repeats.HOLD, description="Two scans in one window: hold for a person, count the first or the latest"
    )
    fetch_priors: bool = Field(
        True, description="Ask the node's sources for earlier scans of a new subject that lie in the windows of visits"
    )
    alert_after_days: int = Field(
        7, ge=0, le=365, description="Days after a window's end from which a missing visit is told"
    )
    release: Release = Field(Release.HOLD_ON_WARNING, description="When results and reports may leave the node")
    destinations: tuple[Name, ...] = Field(
        (), description="Where this trial's results and reports go, and nowhere else"
    )
    blinding: Blinding = Blinding()
    phantom: PhantomRule = PhantomRule()
    exports: ExportRule = ExportRule()
    deidentification: Deidentification = Deidentification()

    @field_validator("subject_pattern")
    @classmethod
    def _is_a_pattern(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        names = [visit.name for visit in self.visits]
        if len(set(names)) < len(names):
            raise ValueError("visits: two have the same name")
        if sum(visit.baseline for visit in self.visits) != 1:
            raise ValueError("visits: exactly one must be the baseline")
        for one, other in zip(self.visits, self.visits[1:], strict=False):
            if other.day <= one.day:
                raise ValueError(f"visits: {other.name} must come after {one.name}")
        if self.day_zero == "baseline_scan" and self.baseline.day != 0:
            raise ValueError("visits: where day zero is the baseline's scan, the baseline's day is 0")
        sites = [site.id for site in self.sites]
        if len(set(sites)) < len(sites):
            raise ValueError("sites: two have the same id")
        for cell in self.primary:
            unknown = set(cell.visits) - set(names)
            if unknown:
                raise ValueError(f"primary: no visit {', '.join(sorted(unknown))}; allowed: {', '.join(names)}")
            if cell.level == "treated" and self.treated_levels is None:
                raise ValueError("primary: the level 'treated' needs the file treated_levels")
        return self

    def is_subject(self, name: str) -> bool:
        """Whether a text is of the form of a subject's ID."""
        return re.fullmatch(self.subject_pattern, name) is not None

    @property
    def baseline(self) -> Visit:
        """The visit that later ones are compared with."""
        return next(visit for visit in self.visits if visit.baseline)


def load_plan(path: Path) -> TrialPlan:
    """Read and check a plan (YAML). Relative paths in it are taken from its folder.

    Raises:
        SettingsError: naming file, key, what was found and what is allowed.
    """
    try:
        return parse_plan(path.read_bytes(), path)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error


def parse_plan(text: bytes, path: Path) -> TrialPlan:
    """As :func:`load_plan`, of a file's bytes that are at hand.

    Raises:
        SettingsError: as there.
    """
    plan = parse_section(text, path, TrialPlan)
    folder = path.resolve().parent
    if plan.change.precision.endswith((".yaml", ".yml")):
        change = plan.change.model_copy(update={"precision": str(folder / plan.change.precision)})
        plan = plan.model_copy(update={"change": change})
    return plan.with_paths_in(folder)


def load_plans(folder: Path | None) -> tuple[tuple[Path, TrialPlan], ...]:
    """All plans of a folder (``*.yaml``), by name of file; none without a folder.

    Raises:
        SettingsError: one cannot be used, or two are of the same trial.
    """
    if folder is None:
        return ()
    if not folder.is_dir():
        raise SettingsError(f"trials_dir: {folder} is not a folder")
    plans = tuple((path, load_plan(path)) for path in sorted(folder.glob("*.yaml")))
    ids = [plan.protocol_id for _, plan in plans]
    for protocol_id in ids:
        if ids.count(protocol_id) > 1:
            raise SettingsError(f"trials_dir: two plans have the protocol_id {protocol_id!r}")
    return plans


def plan_sha256(path: Path) -> str:
    """SHA-256 of a plan's file, byte by byte, as it is recorded when a trial begins and when it is frozen."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
