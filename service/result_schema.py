"""The format of ``result.json``, published as JSON Schema in ``result_schema.json`` beside this file.

``python -m service.result_schema`` prints the schema. Changes that break a reader get a new number in the name.
"""

import json
import sys
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from config.settings import ObjectKind
from processing.refusal import ReasonCode
from processing.results import Quantity, Verdict

Uid = Annotated[str, Field(pattern=r"^[0-9.]{1,64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Empty(_Part):
    """An empty object: nothing was measured."""


class ReasonEntry(_Part):
    """Why the exam was refused, or what is to be checked."""

    code: ReasonCode
    detail: str = Field(description="For a person; never holds a patient's identity")


class InputEntry(_Part):
    """One series that was measured, or refused. A refused series has no protocol and no times."""

    series_uid: Uid
    protocol: str | None = Field(None, description="Name of the protocol card")
    t1rho_times_ms: tuple[float, ...] = Field((), description="Spin-lock times; empty without T1rho")
    t2_times_ms: tuple[float, ...] = Field((), description="Echo preparation times; empty without T2")


class AcquisitionEntry(_Part):
    """How the exam was acquired, as far as its headers tell; empty or null where they are silent."""

    manufacturer: str = ""
    model: str = ""
    device_serial: str = ""
    software_versions: str = ""
    receive_coil: str = ""
    protocol: str = Field("", description="Name of the protocol card of the measured scan")
    field_strength_t: float | None = None
    spin_lock_hz: float | None = Field(None, description="As the header says it, else the protocol card")
    t1rho_times_ms: tuple[float, ...] = ()
    t2_times_ms: tuple[float, ...] = ()
    repetition_time_ms: float | None = None
    pixel_bandwidth_hz: float | None = None
    matrix: tuple[int, int] | None = Field(None, description="Rows, columns")
    pixel_spacing_mm: tuple[float, float] | None = Field(None, description="Between rows, between columns")
    slice_thickness_mm: float | None = None
    slice_spacing_mm: float | None = None
    n_slices: int | None = None
    slice_normal: tuple[float, float, float] | None = Field(None, description="Unit LPS vector")
    acquired_at: datetime | None = Field(None, description="The scanner's own clock: local time without zone")


class MotionEntry(_Part):
    """How far one image lies from the first image of its decay, in the plane of the slices. Null: not comparable."""

    quantity: Quantity
    time_ms: float = Field(description="Spin-lock or preparation time of the image")
    displacement_mm: float | None = Field(description="The largest displacement of any disc pixel")
    rows_mm: float | None = Field(description="Shift of the middle of the discs along the rows' axis (downwards)")
    columns_mm: float | None = Field(description="Shift of the middle of the discs along the columns' axis")
    rotation_deg: float | None = Field(description="Rotation, positive from columns towards rows")
    corrected: bool = Field(description="The image was brought back onto the first before anything was measured")


LevelName = Literal["L5S1", "L4L5", "L3L4", "L2L3", "L1L2", "T12L1"]


class CorrectionEntry(_Part):
    """That a person has drawn or changed the discs, and how they compare with those that the networks found."""

    sop_instance_uid: Uid | None = Field(description="Of the Segmentation; null for a volume file")
    sha256: str = Field(description="Of the file that was used")
    editor: str = Field(description="Who, as the tool wrote it; empty where it did not")
    tool: str = Field(description="Maker, name and version of the program")
    automatic_dice: dict[LevelName, float] = Field(
        description="Dice of each disc with the automatic one of its name, 0 where there was none; empty where the"
        " networks found no discs that could be named"
    )
    removed: tuple[LevelName, ...] = Field(description="Discs that the networks found and the person left out")
    automatic_refusal: ReasonEntry | None = Field(None, description="Why the networks found none")


class Statistics(_Part):
    """Relaxation time over the voxels of a region, in ms. mean, sd and median are null where no voxel has a value."""

    mean: float | None
    sd: float | None
    median: float | None
    n: int = Field(ge=0, description="Voxels with a value")
    n_excluded: int = Field(ge=0, description="Voxels of the region without a value")
    excluded: dict[str, int] = Field({}, description="Reason of exclusion -> voxels")


class DiscStatistics(Statistics):
    """Relaxation time over the whole disc, and how much of its mean depends on where the disc is taken to end."""

    member_sd: float | None = Field(
        None,
        ge=0,
        description="SD (n - 1) over the members of the ensemble of the mean in each member's own mask, in ms; null for"
        " a single network, and where fewer than two members have a mean",
    )
    n_members: int | None = Field(
        None, ge=0, description="Members whose mask of the disc has a voxel with a value; null for a single network"
    )


class RegionEntry(_Part):
    """T1rho and T2 of a region; empty where not measured."""

    t1rho_ms: Statistics | _Empty
    t2_ms: Statistics | _Empty


class Regions(_Part):
    """Parts of a disc, as the atlas divides it."""

    nucleus: RegionEntry
    anterior_annulus: RegionEntry
    posterior_annulus: RegionEntry


class Registration(_Part):
    """How well the disc was registered to its atlas disc."""

    dice: float | None
    sd_jacobian: float | None = Field(description="SD of det J over the atlas disc")
    min_jacobian: float | None = Field(description="Minimum of det J; below 0 means folding")
    sd_jacobian_bspline: float | None = Field(None, description="SD of det J of the B-spline alone: det J / det A")
    min_jacobian_bspline: float | None = Field(None, description="Minimum of det J of the B-spline alone")
    sd_jacobian_patient: float | None = Field(
        None, description="SD of det J of the inverse over the patient's disc; null where the deformation folds"
    )
    min_jacobian_patient: float | None = Field(None, description="Minimum of det J of the inverse; null where it folds")


class Segmentation(_Part):
    """How sure the networks are of a disc. What members agree on is null for a single network."""

    mean_probability: float | None = Field(description="Mean probability of disc in the mask")
    ring_entropy: float | None = Field(description="Mean softmax entropy, 0 to 1, over the disc and 2 pixels around it")
    touches_border: bool = Field(description="The mask reaches the edge of the image")
    n_members: int = Field(ge=1, description="Networks in the ensemble")
    n_members_with_disc: int = Field(ge=0, description="Of these, those that see at least one voxel of the disc")
    member_dice: float | None = Field(
        description="Mean Dice of all pairs of members' masks; a pair of which one does not see the disc counts 0"
    )
    member_volume_sd_mm3: float | None = Field(description="SD (n - 1) of the disc's volume over the members")


class DiscEntry(_Part):
    """One disc. t1rho_ms and t2_ms are those of the whole disc."""

    t1rho_ms: DiscStatistics | _Empty
    t2_ms: DiscStatistics | _Empty
    level: LevelName
    volume_mm3: float | None
    segmentation: Segmentation | _Empty = Field(_Empty(), description="Empty where no network made the mask")
    regions: Regions
    registration: Registration | _Empty = Field(description="Empty where the disc was not registered")


class ObjectEntry(_Part):
    """One DICOM object that was made."""

    kind: ObjectKind
    path: str = Field(description="Relative to the folder of this file, with forward slashes")
    sop_class_uid: Uid
    sop_instance_uid: Uid


class SupersededObject(_Part):
    """An object of an earlier result."""

    kind: ObjectKind
    sop_instance_uid: Uid


class PredecessorEntry(_Part):
    """The result that this one supersedes: more images came, a person named the lowest disc or corrected discs."""

    version: int = Field(ge=1)
    objects: tuple[SupersededObject, ...] = Field(description="What it made")


class ResultDocument(_Part):
    """The result of one exam. For research use only."""

    format: Literal["discnode.result/1"] = Field("discnode.result/1", alias="schema")
    use: Literal["Research use only"] = "Research use only"
    status: Verdict
    version: int | None = Field(None, ge=1, description="Which analysis of the exam it is; absent without a node")
    predecessor: PredecessorEntry | None = Field(None, description="Absent in the first result of an exam")
    reasons: tuple[ReasonEntry, ...]
    produced_at: datetime | None = Field(None, description="Time that stands in the DICOM objects; absent when refused")
    inputs: tuple[InputEntry, ...]
    acquisition: AcquisitionEntry | None = Field(None, description="Absent when refused")
    motion: tuple[MotionEntry, ...] = Field((), description="Of each image but the first of the exam; T1rho, then T2")
    correction: CorrectionEntry | None = Field(None, description="Absent where the discs are the networks'")
    discs: tuple[DiscEntry, ...] = Field(description="From below: L5S1 first")
    objects: tuple[ObjectEntry, ...]
    timings_s: dict[str, float] = Field(description="Step -> wall seconds")
    versions: dict[str, str] = Field(description="Software, weights, settings and protocol that made the result")


def schema_text() -> str:
    """The JSON Schema (draft 2020-12) of ``result.json``."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "discnode.result/1"}
    return json.dumps(schema | ResultDocument.model_json_schema(by_alias=True), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
