"""Every setting of the node: one frozen tree, unknown keys refused. discnode.yaml mirrors the defaults, commented."""

import hashlib
import re
from enum import StrEnum
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from config.audit import AuditSettings
from config.corrections import CorrectionSettings
from config.delivery import Confirm as Confirm
from config.delivery import Delivery as Delivery
from config.delivery import Reconciliation as Reconciliation
from config.destinations import USUAL_OBJECTS as USUAL_OBJECTS
from config.destinations import Destination as Destination
from config.destinations import ObjectKind as ObjectKind
from config.health import HealthSettings
from config.jobs import Jobs as Jobs
from config.logs import LogSettings
from config.notifications import Notifications
from config.peers import Peer as Peer
from config.reception import Reception
from config.release import Release
from config.retention import Retention as Retention
from config.sections import AETitle, Port, Section
from config.sections import SettingsError as SettingsError
from config.sources import Retrieval as Retrieval
from config.sources import Source as Source
from config.tls import TLS
from config.web import Web as Web

#: User and password in an address: a fault is told without them.
_USERINFO = re.compile(r"//[^/\s]*@")


class Repeats(StrEnum):
    """What to do with an exam in which a scan was repeated and is there twice, whole."""

    HOLD = "hold"
    FIRST = "first"
    LATEST = "latest"


class SubjectLine(StrEnum):
    """What a report shows of whose exam it is; never a name."""

    PATIENT_ID = "patient_id"
    TRIAL_SUBJECT = "trial_subject"
    NONE = "none"


class Route(Section):
    """Which results go where. Without any route every result goes to every destination."""

    when: dict[str, str] = Field(
        default_factory=dict, description="Conditions: calling_ae_title, protocol; empty = always"
    )
    send_to: tuple[str, ...] = Field(description="Names of destinations")
    release: Release = Field(
        Release.AUTOMATIC, description="Whether a person decides first: automatic, hold_on_warning, hold"
    )

    @model_validator(mode="after")
    def _conditions_are_known(self) -> "Route":
        unknown = set(self.when) - {"calling_ae_title", "protocol"}
        if unknown:
            raise ValueError(f"unknown condition {', '.join(sorted(unknown))}; allowed: calling_ae_title, protocol")
        return self


class Completion(Section):
    """When an exam is complete. Evidence (grid, announced count, sources, commitment requests) comes first."""

    idle_s: float = Field(
        120.0, gt=0, le=86_400, description="Without evidence: seconds of silence before an exam is judged as it is"
    )
    anatomy_idle_s: float | None = Field(
        None,
        gt=0,
        le=604_800,
        description="The same for an exam of anatomy alone, whose relaxometry may follow; empty = ten times idle_s",
    )
    sweep_s: float = Field(2.0, ge=0.2, le=60, description="Seconds between two looks at what has arrived")
    repeats: Repeats = Field(
        Repeats.HOLD, description="A scan that is there twice: hold for a person, measure the first, or the latest"
    )

    @property
    def resolved_anatomy_idle_s(self) -> float:
        """Seconds of silence before anatomy alone is measured; never less than ``idle_s``."""
        return max(self.idle_s, 10 * self.idle_s if self.anatomy_idle_s is None else self.anatomy_idle_s)


class RegistrationSettings(Section):
    """Mask-guided registration to the level atlas."""

    preset: Literal["fast", "paper"] = Field(
        "fast", description="fast: tuned for even deformations; paper: weight 0.77 and 200 iterations, as published"
    )
    parameters_dir: Path | None = Field(
        None, description="Folder with the site's own elastix parameter files, used in place of those of the same name"
    )
    processes: int = Field(2, ge=1, le=16, description="Warm registration processes in a worker, one disc at a time")
    deadline_s: float = Field(300.0, ge=10, le=3600, description="Seconds after which the process of a disc is killed")
    min_dice: float = Field(0.85, ge=0, le=1, description="Below this Dice with the atlas disc the exam needs review")
    atlas: str = Field(
        "healthy", min_length=1, description="Name of a shipped atlas (discnode atlas list), or path of an .npz file"
    )


class FittingSettings(Section):
    """The relaxation times. The defaults are the paper's fit, without its ceilings."""

    noise_floor: Literal["ignored", "estimated"] = Field(
        "ignored", description="estimated: fit the expected magnitude in the noise of the images' background"
    )
    paper_ceilings: bool = Field(
        False, description="Leave out T1rho from 250 ms on (200 where T2 comes with it) and T2 from 150 ms on"
    )


class SegmentationSettings(Section):
    """The network and when its answer is doubted."""

    model: str = Field("cfcm-lumbar", description="Name in the model registry")
    weights_dir: Path | None = Field(
        None, description="Folder with the site's own networks and their registry.yaml; empty = those that are shipped"
    )
    threads: int = Field(2, ge=1, le=64, description="Slices that a worker asks the networks about side by side")
    threshold: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Disc probability from which a voxel belongs to a disc; empty = as calibrated for the model",
    )
    max_ring_entropy: float = Field(
        0.35, gt=0, le=1, description="Mean entropy around a disc above which it needs review"
    )
    min_member_dice: float = Field(
        0.9, ge=0, le=1, description="Mean Dice between the networks' own masks of a disc below which it needs review"
    )


class EchoSettings(Section):
    """Motion of the patient between the images of a decay."""

    max_motion_mm: float = Field(
        0.8, gt=0, le=20, description="An image that lies further from the first, anywhere in a disc, needs review"
    )
    correct_motion: bool = Field(False, description="Bring moved images back onto the first before anything is fitted")
    max_correction_mm: float = Field(5.0, gt=0, le=15, description="An image that moved further is not corrected")


class ReportSettings(Section):
    """The exam report (PDF and HTML)."""

    subject: SubjectLine = Field(
        SubjectLine.PATIENT_ID, description="Who it is about: patient_id, trial_subject (with site and visit), none"
    )


class Settings(Section):
    """All settings of one node."""

    ae_title: AETitle = Field("DISCNODE", description="AE title of the node; calls to another title are refused")
    bind: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for all")
    port: Port = Field(11112, description="TCP port of the storage SCP")
    storage_dir: Path = Field(Path("discnode-data"), description="Where received images, results and the database live")
    database_url: str | None = Field(
        None, description="SQLAlchemy URL without a password (PGPASSFILE tells it); empty = SQLite in storage_dir"
    )
    executor: Literal["processes"] = Field("processes", description="Where jobs run")
    max_associations: int = Field(100, ge=1, le=1000, description="Associations served at once")
    reception: Reception = Reception()
    tls: TLS | None = Field(None, description="A second port that is spoken to by TLS alone; empty = none")
    peers: tuple[Peer, ...] = Field((), description="Who may send; empty = only callers on this machine")
    sources: tuple[Source, ...] = Field((), description="PACS that are asked what exams hold, and for what is missing")
    destinations: tuple[Destination, ...] = Field((), description="Where results go; nothing is sent anywhere else")
    routes: tuple[Route, ...] = Field((), description="Which results go where; empty = all to all destinations")
    protocols_dir: Path | None = Field(
        None, description="Folder with the site's own protocol cards, used beside the built-in ones"
    )
    trials_dir: Path | None = Field(
        None, description="Folder with the plans of trials (*.yaml) that the node follows; empty = it follows none"
    )
    phantoms_dir: Path | None = Field(
        None, description="Folder with the templates of the site's own QC phantoms, used beside the built-in one"
    )
    completion: Completion = Completion()
    corrections: CorrectionSettings = CorrectionSettings()
    jobs: Jobs = Jobs()
    segmentation: SegmentationSettings = SegmentationSettings()
    echoes: EchoSettings = EchoSettings()
    registration: RegistrationSettings = RegistrationSettings()
    fitting: FittingSettings = FittingSettings()
    report: ReportSettings = ReportSettings()
    delivery: Delivery = Delivery()
    retention: Retention = Retention()
    reconciliation: Reconciliation = Reconciliation()
    web: Web = Web()
    health: HealthSettings = HealthSettings()
    logs: LogSettings = LogSettings()
    audit: AuditSettings = AuditSettings()
    notifications: Notifications = Notifications()

    @field_validator("database_url")
    @classmethod
    def _no_password(cls, value: str | None) -> str | None:
        address = urlsplit(value or "")
        if address.password is not None or "password" in address.query.lower():
            raise ValueError("no password here: give it in the environment (PGPASSFILE, or PGPASSWORD)")
        return value

    @model_validator(mode="after")
    def _callers_by_tls_can_be_told(self) -> "Settings":
        for peer in self.peers:
            if peer.needs_tls and self.tls is None:
                raise ValueError(f"peers: {peer.ae_title} must call by TLS, but the node has no tls section")
            if peer.needs_tls and self.tls is not None and not peer.certificate and self.tls.asks_for_certificate:
                raise ValueError(
                    f"peers: {peer.ae_title} calls by TLS and must show a certificate; bind it with 'certificate'"
                    " (SHA-256 fingerprint, or name in it)"
                )
        if self.tls is not None and self.tls.port == self.port:
            raise ValueError("tls.port: must not be the port without TLS")
        return self

    @model_validator(mode="after")
    def _names_agree(self) -> "Settings":
        names = [destination.name for destination in self.destinations]
        if len(set(names)) < len(names):
            raise ValueError("two destinations have the same name")
        known = {peer.ae_title for peer in self.peers}
        for ae_title in self.corrections.accepted_from:
            if known and ae_title not in known:
                allowed = ", ".join(sorted(known))
                raise ValueError(f"corrections.accepted_from: {ae_title!r} is none of the peers; allowed: {allowed}")
        if len({source.name for source in self.sources}) < len(self.sources):
            raise ValueError("two sources have the same name")
        for route in self.routes:
            for name in route.send_to:
                if name not in names:
                    allowed = ", ".join(names) or "none"
                    raise ValueError(f"routes: destination {name!r} is not configured; allowed: {allowed}")
        return self

    @property
    def resolved_database_url(self) -> str:
        """The database to use: ``database_url``, else SQLite in the storage folder."""
        return self.database_url or f"sqlite:///{self.storage_dir / 'discnode.sqlite'}"

    @property
    def analysis_digest(self) -> str:
        """Sixteen hex digits over the settings that change a result (not ports, paths or peers).

        The atlas and elastix' parameters are not among them: what is in their files counts, not what they are called
        (service.versions).
        """
        parts = (
            self.segmentation.model_dump_json(exclude={"weights_dir", "threads"}),
            self.echoes.model_dump_json(),
            self.registration.model_dump_json(exclude={"atlas", "parameters_dir", "processes", "deadline_s"}),
            self.fitting.model_dump_json(),
        )
        return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


def load_settings(path: Path | None) -> Settings:
    """Read and check a settings file (YAML); None gives the defaults.

    Relative paths in the file are taken from the file's folder.

    Raises:
        SettingsError: naming file, key, what was found and what is allowed.
    """
    if path is None:
        return Settings()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: must hold settings as 'key: value' lines")
    try:
        settings = Settings.model_validate(content)
    except ValidationError as error:
        raise SettingsError("\n".join(explain(path, error, Settings))) from error
    folder = path.resolve().parent
    moved: dict[str, object] = {
        "storage_dir": folder / settings.storage_dir,
        "destinations": tuple(one.with_paths_in(folder) for one in settings.destinations),
        "sources": tuple(one.with_paths_in(folder) for one in settings.sources),
        "web": settings.web.with_paths_in(folder),
        "audit": settings.audit.with_paths_in(folder),
        "notifications": settings.notifications.with_paths_in(folder),
    }
    if settings.tls is not None:
        moved["tls"] = settings.tls.with_paths_in(folder)
    if settings.protocols_dir is not None:
        moved["protocols_dir"] = folder / settings.protocols_dir
    if settings.trials_dir is not None:
        moved["trials_dir"] = folder / settings.trials_dir
    if settings.phantoms_dir is not None:
        moved["phantoms_dir"] = folder / settings.phantoms_dir
    if settings.segmentation.weights_dir is not None:
        weights_dir = folder / settings.segmentation.weights_dir
        moved["segmentation"] = settings.segmentation.model_copy(update={"weights_dir": weights_dir})
    registration = settings.registration
    if registration.parameters_dir is not None:
        registration = registration.model_copy(update={"parameters_dir": folder / registration.parameters_dir})
    if registration.atlas.endswith(".npz"):
        registration = registration.model_copy(update={"atlas": str(folder / registration.atlas)})
    moved["registration"] = registration
    return settings.model_copy(update=moved)


def explain(path: Path, error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line per fault of a YAML file: file, key, what is wrong, what is allowed."""
    lines = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"]) or "(file)"
        text = f"{path}: {key}: {fault['msg']}"
        if fault["type"] == "extra_forbidden":
            text = f"{path}: {key}: unknown key; allowed here: {', '.join(_keys_at(model, fault['loc'][:-1]))}"
        elif fault["type"] not in ("value_error", "missing"):
            text += f" (found {_USERINFO.sub('//***@', repr(fault['input']))})"
        lines.append(text)
    return lines


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys allowed at a place in the tree."""
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next(one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel))
    return sorted(model.model_fields)
