"""Every setting of the node: one frozen tree, unknown keys refused. discnode.yaml mirrors the defaults, commented."""

import hashlib
import re
from enum import StrEnum
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from config.destinations import USUAL_OBJECTS as USUAL_OBJECTS
from config.destinations import Destination as Destination
from config.destinations import ObjectKind as ObjectKind
from config.peers import Peer as Peer
from config.reception import Reception
from config.sections import AETitle, Port, Section
from config.sections import SettingsError as SettingsError
from config.sources import Retrieval as Retrieval
from config.sources import Source as Source
from config.tls import TLS
from config.web import Web as Web

#: User and password in an address: a fault is told without them.
_USERINFO = re.compile(r"//[^/\s]*@")
_Section = TypeVar("_Section", bound=Section)


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


class Jobs(Section):
    """The queue of analyses."""

    workers: int = Field(1, ge=1, le=64, description="Worker processes, each at most 3 GB")
    attempts: int = Field(5, ge=1, le=20, description="How often a job is tried before it is parked")
    lease_s: float = Field(60.0, ge=5, le=3600, description="A job whose worker was silent so long goes to another")


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


class Delivery(Section):
    """The outbox."""

    first_retry_s: float = Field(5.0, gt=0, le=3600, description="Seconds before the first retry; doubles each time")
    longest_retry_s: float = Field(900.0, gt=0, le=86_400, description="Longest wait between tries; retries never end")
    timeout_s: float = Field(30.0, gt=0, le=600, description="Network and response timeout")

    @model_validator(mode="after")
    def _waits_grow(self) -> "Delivery":
        if self.first_retry_s > self.longest_retry_s:
            waits = f"first_retry_s {self.first_retry_s:g} is more than longest_retry_s {self.longest_retry_s:g}"
            raise ValueError(waits)
        return self


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
    completion: Completion = Completion()
    jobs: Jobs = Jobs()
    segmentation: SegmentationSettings = SegmentationSettings()
    echoes: EchoSettings = EchoSettings()
    registration: RegistrationSettings = RegistrationSettings()
    fitting: FittingSettings = FittingSettings()
    report: ReportSettings = ReportSettings()
    delivery: Delivery = Delivery()
    web: Web = Web()

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
        "destinations": tuple(_with_moved_files(one, folder) for one in settings.destinations),
        "sources": tuple(_with_moved_files(one, folder) for one in settings.sources),
        "web": _with_moved_files(settings.web, folder),
    }
    if settings.tls is not None:
        moved["tls"] = _with_moved_files(settings.tls, folder)
    if settings.protocols_dir is not None:
        moved["protocols_dir"] = folder / settings.protocols_dir
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


def _with_moved_files(section: _Section, folder: Path) -> _Section:
    """The section, and those in it, with the paths of its files taken from a folder."""
    moved: dict[str, object] = {}
    for key in type(section).model_fields:
        value = getattr(section, key)
        if isinstance(value, Path):
            moved[key] = folder / value
        elif isinstance(value, Section):
            moved[key] = _with_moved_files(value, folder)
    return section.model_copy(update=moved)


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
