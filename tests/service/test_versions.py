"""Everything that can change a number changes the identity of a result, and nothing else does."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_networks import affine_network, register

from config.settings import RegistrationSettings, SegmentationSettings, Settings
from models.inference import OnnxModel
from models.registry import load_model
from processing.atlas import ATLAS_FOLDER, read_atlas
from processing.elastix_parameters import ELASTIX_FOLDER, read_parameters, write_parameters
from processing.results import Level
from service.trials.freezing import what_differs
from service.versions import pipeline_versions, software_versions

PROTOCOLS = ("ge-mapss",)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    folder = tmp_path_factory.mktemp("networks")
    paths = [affine_network(folder / f"n{k}.onnx", [k] * 5, [0] * 5) for k in range(2)]
    return OnnxModel(load_model("made", register(folder, *paths, threshold=0.4)), device="cpu")


def settings(**segmentation: object) -> Settings:
    return Settings(segmentation=SegmentationSettings.model_validate(segmentation))


def digest(one: Settings, model: OnnxModel) -> str:
    return software_versions(one, model, PROTOCOLS)["settings_digest"]


def test_the_ensemble_stands_in_the_versions(model: OnnxModel) -> None:
    versions = software_versions(settings(), model, PROTOCOLS)
    assert versions["model_sha256"] == model.record.sha256
    assert (versions["model_members"], versions["disc_threshold"]) == ("2", "0.4")
    assert versions["inference_provider"] == "CPUExecutionProvider"


def test_the_threshold_counts_wherever_it_comes_from(model: OnnxModel) -> None:
    own = digest(settings(), model)
    assert digest(settings(threshold=0.4), model) == own  # the same, said twice
    assert digest(settings(threshold=0.5), model) != own
    assert software_versions(settings(threshold=0.5), model, PROTOCOLS)["disc_threshold"] == "0.5"
    recalibrated = OnnxModel(replace(model.record, threshold=0.45), device="cpu")
    assert digest(settings(), recalibrated) != own
    assert recalibrated.record.sha256 == model.record.sha256


def test_the_networks_pixel_size_counts(model: OnnxModel) -> None:
    coarser = OnnxModel(replace(model.record, spacing_mm=1.0), device="cpu")
    assert digest(settings(), coarser) != digest(settings(), model)


def test_where_the_weights_lie_does_not_count(model: OnnxModel) -> None:
    assert digest(settings(weights_dir=Path("/elsewhere")), model) == digest(settings(), model)


def test_elastix_parameters_count_by_what_they_say(model: OnnxModel, tmp_path: Path) -> None:
    shipped = ELASTIX_FOLDER / "bspline_fast_3d.txt"
    own = tmp_path / shipped.name
    site = Settings(registration=RegistrationSettings(parameters_dir=tmp_path))
    own.write_text("// the same, with another comment\n" + shipped.read_text(encoding="utf-8"), encoding="utf-8")
    same = software_versions(site, model, PROTOCOLS)
    assert same == software_versions(Settings(), model, PROTOCOLS)
    assert (same["registration_seed"], same["registration_threads"]) == ("1", "1")
    write_parameters(own, read_parameters(shipped) | {"Metric1Weight": ("0.5",)}, "another weight")
    changed = software_versions(site, model, PROTOCOLS)
    differing = {name for name in same if changed[name] != same[name]}
    assert differing == {"registration_parameters_3d", "settings_digest", "pipeline_digest"}


def test_the_atlas_counts_by_its_content_not_by_its_name(model: OnnxModel, tmp_path: Path) -> None:
    def with_atlas(atlas: str) -> dict[str, str]:
        one = Settings(registration=RegistrationSettings(atlas=atlas))
        return software_versions(one, model, PROTOCOLS)

    usual, other = with_atlas("healthy"), with_atlas("degenerated")
    copied = tmp_path / "copy.npz"
    copied.write_bytes((ATLAS_FOLDER / "degenerated.npz").read_bytes())
    copy = with_atlas(str(copied))
    assert (usual["atlas"], other["atlas"], copy["atlas"]) == ("healthy", "degenerated", "degenerated")
    assert other["atlas_sha256"] == copy["atlas_sha256"] == read_atlas("degenerated").sha256
    assert usual["settings_digest"] != other["settings_digest"] == copy["settings_digest"]


def test_a_persons_word_is_no_other_pipeline_and_another_setting_is(model: OnnxModel) -> None:
    """What a trial is frozen to: every result of the same program says the same of it."""
    frozen = {"versions": pipeline_versions(settings(), model.record, PROTOCOLS)}
    assert what_differs(frozen, software_versions(settings(), model, PROTOCOLS)) == ()
    named = software_versions(settings(), model, PROTOCOLS, lowest_disc=Level.L4L5)
    assert named["settings_digest"] != named["pipeline_digest"]
    assert what_differs(frozen, named) == ()
    other = software_versions(settings(max_ring_entropy=0.3), model, PROTOCOLS)
    (told,) = what_differs(frozen, other)
    assert told.startswith("settings ")
    assert len(what_differs(frozen, {})) == len(frozen["versions"])
