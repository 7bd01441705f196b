"""What made a result: software, weights, settings and cards, as it stands in every output."""

from importlib.metadata import version

from config.settings import Settings
from models.inference import OnnxModel

#: Packages whose version can change a number.
_PACKAGES = ("highdicom", "itk-elastix", "numpy", "onnxruntime-gpu", "pydicom", "scikit-image", "scipy", "SimpleITK")


def software_versions(settings: Settings, model: OnnxModel, protocols: tuple[str, ...]) -> dict[str, str]:
    """Name -> version or digest of everything that made a result."""
    versions = {"discnode": version("discnode")}
    versions |= {package: version(package) for package in _PACKAGES}
    versions |= {
        "model": model.record.name,
        "model_sha256": model.record.sha256,
        "inference_provider": model.provider,
        "settings_digest": settings.analysis_digest,
        "protocol": ", ".join(protocols),
    }
    return versions
