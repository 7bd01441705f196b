"""A wrong setting is refused with file, key and what is allowed; the commented defaults are the code's."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

import config
from config.settings import USUAL_OBJECTS, ObjectKind, Settings, SettingsError, load_settings

DEFAULTS_FILE = Path(config.__file__).parent / "discnode.yaml"


def write(folder: Path, text: str) -> Path:
    path = folder / "site.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(write(folder, text))
    return str(caught.value)


def keys_of(tree: dict[str, Any], prefix: str = "") -> set[str]:
    keys = set()
    for key, value in tree.items():
        keys.add(prefix + key)
        if isinstance(value, dict):
            keys |= keys_of(value, f"{prefix}{key}.")
    return keys


def test_commented_defaults_are_the_defaults_of_the_code() -> None:
    written = yaml.safe_load(DEFAULTS_FILE.read_text(encoding="utf-8"))
    expected = Settings().model_dump(mode="json")
    assert keys_of(written) == keys_of(expected)
    assert written == expected


def test_every_default_stands_below_its_comment() -> None:
    lines = DEFAULTS_FILE.read_text(encoding="utf-8").splitlines()
    settings = [number for number, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")]
    assert len(settings) == len(keys_of(Settings().model_dump()))
    for number in settings:
        assert lines[number - 1].lstrip().startswith("#"), lines[number]


def test_file_of_defaults_loads_like_no_file() -> None:
    loaded = load_settings(DEFAULTS_FILE)
    assert loaded.model_copy(update={"storage_dir": Settings().storage_dir}) == load_settings(None) == Settings()


def test_relative_paths_are_taken_from_the_folder_of_the_file(tmp_path: Path) -> None:
    settings = load_settings(
        write(
            tmp_path,
            "storage_dir: data\nprotocols_dir: cards\nsegmentation: {weights_dir: nets}\n"
            "registration: {parameters_dir: own}\n",
        )
    )
    assert settings.storage_dir == tmp_path.resolve() / "data"
    assert settings.protocols_dir == tmp_path.resolve() / "cards"
    assert settings.segmentation.weights_dir == tmp_path.resolve() / "nets"
    assert settings.registration.parameters_dir == tmp_path.resolve() / "own"
    assert settings.resolved_database_url == f"sqlite:///{tmp_path.resolve()}/data/discnode.sqlite"
    absolute = load_settings(write(tmp_path, "storage_dir: /srv/discnode\ndatabase_url: postgresql://db/x\n"))
    assert absolute.storage_dir == Path("/srv/discnode")
    assert absolute.resolved_database_url == "postgresql://db/x"


def test_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, "# nothing\n")).port == 11112


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("prot: 1\n", "prot", "unknown key; allowed here: ae_title, audit, bind"),
        ("jobs: {worker: 1}\n", "jobs.worker", "unknown key; allowed here: attempts, lease_s, retry_s, workers"),
        (
            "destinations: [{name: a, ae_title: A, host: h, port: 1, tsl: 1}]\n",
            "destinations.0.tsl",
            "unknown key; allowed here: ae_title, authorization_variable, ca_file, confirm, deidentify, dicomweb_url,",
        ),
        ("routes: [{send_to: [], until: 1}]\n", "routes.0.until", "unknown key; allowed here: release, send_to, when"),
        ("port: many\n", "port", "found 'many'"),
        ("port: 70000\n", "port", "less than or equal to 65535 (found 70000)"),
        ("jobs: {workers: 0}\n", "jobs.workers", "greater than or equal to 1 (found 0)"),
        ("jobs: 3\n", "jobs", "found 3"),
        ("completion: {idle_s: .nan}\n", "completion.idle_s", "found nan"),
        ("completion: {idle_s: .inf}\n", "completion.idle_s", "found inf"),
        ("segmentation: {threshold: 1.0}\n", "segmentation.threshold", "less than 1"),
        ("registration: {preset: slow}\n", "registration.preset", "'fast' or 'paper' (found 'slow')"),
        ("executor: dask\n", "executor", "'processes' (found 'dask')"),
        ("ae_title: A_TITLE_THAT_IS_TOO_LONG\n", "ae_title", "at most 16 characters"),
        ("ae_title: ''\n", "ae_title", "at least 1 character"),
        ("ae_title: 'A\\B'\n", "ae_title", "pattern"),
        ("destinations: [{name: a, ae_title: A, port: 1}]\n", "destinations.0", "needs host, or dicomweb_url in place"),
        ("destinations: [{name: a}]\n", "destinations.0", "needs ae_title, host, port, or dicomweb_url in place"),
        (
            "destinations: [{name: a, ae_title: A, host: h, port: 1, dicomweb_url: http://h/dicom-web}]\n",
            "destinations.0",
            "ae_title, host, port: not together with dicomweb_url",
        ),
        (
            "destinations: [{name: a, ae_title: A, host: h, port: 1, headers_file: f}]\n",
            "destinations.0",
            "headers_file: only with dicomweb_url",
        ),
        (
            "destinations: [{name: a, dicomweb_url: http://h/w, ca_file: f}]\n",
            "destinations.0",
            "ca_file: only with an https address",
        ),
        ("destinations: [{name: a, dicomweb_url: 'h:80/w'}]\n", "destinations.0.dicomweb_url", "pattern"),
        ("destinations: [{name: a, dicomweb_url: 'https://me:word@h/w'}]\n", "destinations.0.dicomweb_url", "pattern"),
        (
            "destinations: [{name: a, ae_title: A, host: h, port: 1, objects: [film]}]\n",
            "destinations.0.objects.0",
            "'overlay' or 'deformation' (found 'film')",
        ),
        (
            "destinations: [{name: a, dicomweb_url: http://h/w, confirm: commitment}]\n",
            "destinations.0",
            "confirm: commitment needs ae_title, host and port",
        ),
        ("destinations: [{name: a, dicomweb_url: http://h/w, reports_as: A}]\n", "destinations.0", "reports_as"),
        ("reconciliation: {at: 13:00}\n", "reconciliation.at", 'write the time in quotation marks, such as "03:00"'),
        ("reconciliation: {at: '24:00'}\n", "reconciliation.at", "match pattern"),
        ("delivery: {first_retry_s: 90, longest_retry_s: 60}\n", "delivery", "first_retry_s 90 is more than longest"),
    ],
)
def test_a_wrong_setting_names_file_key_and_what_is_allowed(tmp_path: Path, text: str, key: str, message: str) -> None:
    said = refused(tmp_path, text)
    assert said.startswith(f"{tmp_path}/site.yaml: {key}: ")
    assert message in said


DESTINATIONS = """
destinations:
  - {name: pacs, ae_title: PACS, host: a, port: 104}
  - {name: lab, ae_title: LAB, host: b, port: 104, objects: [sr]}
"""


def test_route_to_nowhere_names_the_destinations_there_are(tmp_path: Path) -> None:
    said = refused(tmp_path, DESTINATIONS + "routes: [{send_to: [pacs, archive]}]\n")
    assert "'archive' is not configured; allowed: pacs, lab" in said
    assert "site.yaml" in said
    assert "allowed: none" in refused(tmp_path, "routes: [{send_to: [archive]}]\n")


def test_unknown_condition_of_a_route_names_the_known_ones(tmp_path: Path) -> None:
    said = refused(tmp_path, DESTINATIONS + "routes: [{when: {station: X}, send_to: [pacs]}]\n")
    assert "routes.0" in said
    assert "unknown condition station; allowed: calling_ae_title, protocol" in said


def test_two_destinations_of_one_name_are_refused(tmp_path: Path) -> None:
    assert "same name" in refused(tmp_path, DESTINATIONS.replace("lab", "pacs"))


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    said = refused(tmp_path, "port: 0\nweb: {port: -1}\ncolour: red\n").splitlines()
    assert len(said) == 3


def test_routes_and_destinations_are_read(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, DESTINATIONS + "routes: [{when: {protocol: ge-mapss}, send_to: [lab]}]\n"))
    assert settings.destinations[0].objects == USUAL_OBJECTS
    assert settings.destinations[1].objects == (ObjectKind.SR,)
    assert settings.routes[0].when == {"protocol": "ge-mapss"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"port: [1\n", "is not YAML"),
        (b"\xff\xfe\xfa", "is not YAML"),
        (b"- 1\n", "key: value"),
        (b"just words\n", "key: value"),
    ],
)
def test_files_that_are_no_settings_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=message) as caught:
        load_settings(path)
    assert str(caught.value).startswith(str(path))


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.yaml: cannot be read: No such file"):
        load_settings(tmp_path / "absent.yaml")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_digest_follows_what_changes_a_result_and_nothing_else() -> None:
    digest = Settings().analysis_digest
    assert len(digest) == 16
    changed = Settings.model_validate(
        {
            "port": 104,
            "storage_dir": "/x",
            "registration": {"processes": 4, "deadline_s": 60, "parameters_dir": "own"},
            "segmentation": {"weights_dir": "/nets"},  # the weights have a digest of their own
        }
    )
    assert changed.analysis_digest == digest
    for section in (
        {"segmentation": {"threshold": 0.4}},
        {"registration": {"preset": "paper"}},
        {"echoes": {"correct_motion": True}},
        {"fitting": {"noise_floor": "estimated"}},
        {"fitting": {"paper_ceilings": True}},
    ):
        assert Settings.model_validate(section).analysis_digest != digest


def test_an_atlas_is_a_name_or_a_file_beside_the_settings(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, "registration: {atlas: degenerated}")).registration.atlas == "degenerated"
    ours = load_settings(write(tmp_path, "registration: {atlas: atlases/ours.npz}")).registration.atlas
    assert Path(ours) == tmp_path / "atlases" / "ours.npz"
    there = load_settings(write(tmp_path, "registration: {atlas: /srv/ours.npz}")).registration.atlas
    assert Path(there) == Path("/srv/ours.npz")
    assert "registration.atlas" in refused(tmp_path, "registration: {atlas: ''}")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("peers: [{ae_title: MR, port: 104}]", "port: needs host"),
        ("sources: [{name: p, ae_title: P, host: h, port: 104, retrieve: [wado-rs]}]", "wado-rs needs dicomweb_url"),
        ("sources: [{name: p, ae_title: P, host: h, port: 104, dicomweb_url: 'file:///x'}]", "dicomweb_url"),
        ("sources: [{name: p, ae_title: P, host: h, port: 104, retrieve: [ftp]}]", "'c-get', 'c-move' or 'wado-rs'"),
        (
            "{peers: [{ae_title: MR}], corrections: {accepted_from: [MRI]}}",
            "'MRI' is none of the peers; allowed: MR",
        ),
        (
            "sources: [{name: p, ae_title: P, host: h, port: 1}, {name: p, ae_title: Q, host: h, port: 2}]",
            "two sources have the same name",
        ),
    ],
)
def test_faulty_peers_and_sources_are_refused(tmp_path: Path, line: str, fault: str) -> None:
    assert fault in refused(tmp_path, line)


def test_settings_with_a_source_survive_the_way_to_a_child_process(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, "sources: [{name: pacs, ae_title: PACS, host: h, port: 104}]"))
    assert Settings.model_validate(settings.model_dump(mode="json")) == settings
