"""What made a result: software, weights, settings and cards, as it stands in every output."""

import hashlib
from importlib.metadata import version
from typing import TYPE_CHECKING

from config.protocol_cards import load_cards
from config.settings import Settings
from models.registry import ModelRecord
from processing.atlas import read_atlas
from processing.elastix_parameters import parameters_digest
from processing.registration import SEED
from processing.results import Level, MaskOrigin

if TYPE_CHECKING:  # the supervisor asks for versions too, and must not load the inference
    from models.inference import OnnxModel

#: Packages whose version can change a number.
PACKAGES = ("highdicom", "itk-elastix", "numpy", "onnxruntime-gpu", "pydicom", "scikit-image", "scipy")


def software_versions(
    settings: Settings,
    model: "OnnxModel",
    protocols: tuple[str, ...],
    *,
    lowest_disc: Level | None = None,
    given: MaskOrigin | None = None,
) -> dict[str, str]:
    """Name -> version or digest of everything that made a result; also a person's word on the lowest disc, or mask."""
    record = model.record
    versions = pipeline_versions(settings, record, protocols)
    versions["inference_provider"] = model.provider
    resolved = _with_threshold(settings, record)
    versions["settings_digest"] = _digest(resolved, record, protocols, lowest_disc, given)
    if lowest_disc is not None:
        versions["lowest_disc"] = f"{lowest_disc.name}, said by a person"
    if given is not None:
        name = given.sop_instance_uid or f"a file with sha256 {given.sha256[:16]}"
        versions["correction"] = f"discs of {name}"
    return versions


def pipeline_versions(settings: Settings, record: ModelRecord, protocols: tuple[str, ...]) -> dict[str, str]:
    """What measures an exam of these protocols, before one is measured: the same for every exam.

    ``pipeline_digest`` is the ``settings_digest`` of a result without a person's word or discs.
    """
    resolved = _with_threshold(settings, record)
    atlas = read_atlas(settings.registration.atlas)
    return {
        "discnode": version("discnode"),
        **{package: version(package) for package in PACKAGES},
        "model": record.name,
        "model_version": record.version,
        "model_members": str(len(record.members)),
        "model_sha256": record.sha256,
        "disc_threshold": f"{resolved.segmentation.threshold:g}",
        **_registration(settings),
        "pipeline_digest": _digest(resolved, record, protocols, None, None),
        "atlas": atlas.name,
        "atlas_sha256": atlas.sha256,
        "protocol": ", ".join(protocols),
    }


def _registration(settings: Settings) -> dict[str, str]:
    """What decides how a disc is deformed, beside the atlas; digests of elastix' parameters in 2-D and in 3-D."""
    preset, folder = settings.registration.preset, settings.registration.parameters_dir
    return {
        "registration_preset": preset,
        "registration_parameters_2d": parameters_digest(2, preset, folder),
        "registration_parameters_3d": parameters_digest(3, preset, folder),
        "registration_seed": str(SEED),
        "registration_threads": "1",
    }


def _with_threshold(settings: Settings, record: ModelRecord) -> Settings:
    """The settings with the threshold that is used: their own, else the model's."""
    if settings.segmentation.threshold is not None:
        return settings
    segmentation = settings.segmentation.model_copy(update={"threshold": record.threshold})
    return settings.model_copy(update={"segmentation": segmentation})


def _digest(
    settings: Settings,
    record: ModelRecord,
    protocols: tuple[str, ...],
    lowest_disc: Level | None,
    given: MaskOrigin | None,
) -> str:
    """Sixteen hex digits over what is not in the weights and changes a number.

    These are the settings, what the registry says of the model's use, the atlas, the cards used, and a person's word
    or mask.
    """
    cards = [card.model_dump_json() for card in load_cards(settings.protocols_dir) if card.name in protocols]
    said = [] if lowest_disc is None else [f"lowest_disc={lowest_disc.name}"]
    said += [] if given is None else [f"mask={given.sop_instance_uid} {given.sha256}"]
    atlas = f"atlas_sha256={read_atlas(settings.registration.atlas).sha256}"
    deforming = _registration(settings).values()
    parts = [settings.analysis_digest, f"spacing_mm={record.spacing_mm:g}", atlas, *deforming, *cards, *said]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
