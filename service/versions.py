"""What made a result: software, weights, settings and cards, as it stands in every output."""

import hashlib
from importlib.metadata import version

from config.protocol_cards import load_cards
from config.settings import Settings
from models.inference import OnnxModel
from processing.results import Level

#: Packages whose version can change a number.
_PACKAGES = ("highdicom", "itk-elastix", "numpy", "onnxruntime-gpu", "pydicom", "scikit-image", "scipy")


def software_versions(
    settings: Settings, model: OnnxModel, protocols: tuple[str, ...], *, lowest_disc: Level | None = None
) -> dict[str, str]:
    """Name -> version or digest of everything that made a result; also a person's word on the lowest disc."""
    versions = {"discnode": version("discnode")}
    versions |= {package: version(package) for package in _PACKAGES}
    versions |= {
        "model": model.record.name,
        "model_sha256": model.record.sha256,
        "inference_provider": model.provider,
        "settings_digest": _digest(settings, protocols, lowest_disc),
        "protocol": ", ".join(protocols),
    }
    if lowest_disc is not None:
        versions["lowest_disc"] = f"{lowest_disc.name}, said by a person"
    return versions


def _digest(settings: Settings, protocols: tuple[str, ...], lowest_disc: Level | None) -> str:
    """Sixteen hex digits over what a site can set and what changes a number: settings, cards used, a person's word."""
    cards = [card.model_dump_json() for card in load_cards(settings.protocols_dir) if card.name in protocols]
    said = [] if lowest_disc is None else [f"lowest_disc={lowest_disc.name}"]
    return hashlib.sha256("\n".join([settings.analysis_digest, *cards, *said]).encode()).hexdigest()[:16]
