"""What runs the node beside a shell: the container and the systemd unit allow what it needs and no more."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import yaml

import config
from config.settings import load_settings
from service.doors import check_doors

DOCKER = Path(config.__file__).parent.parent / "docker"


def test_the_example_settings_serve_who_is_named_and_nobody_else() -> None:
    settings = load_settings(DOCKER / "discnode.yaml")
    (network,) = yaml.safe_load((DOCKER / "compose.yaml").read_text())["networks"]["exams"]["ipam"]["config"]
    assert settings.peers
    assert {peer.host for peer in settings.peers} == {network["subnet"]}
    assert not any("no host" in note or "nobody" in note for note in check_doors(settings))


def test_the_archive_beside_the_node_knows_it() -> None:
    """It answered neither commitment requests nor queries of a stranger: nothing was ever confirmed."""
    settings = load_settings(DOCKER / "discnode.yaml")
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    known = json.loads(services["orthanc"]["environment"]["ORTHANC__DICOM_MODALITIES"])
    assert known == {"discnode": [settings.ae_title, "node", settings.port]}
    assert [one.host for one in settings.destinations] == ["orthanc"]  # as whom it may call with the results
    assert f"127.0.0.1:{settings.web.port}/health/ready" in services["node"]["healthcheck"]["test"][-1]


def test_the_unit_does_not_try_wrong_settings_for_ever() -> None:
    """What ExecStartPre says does not count for RestartPreventExitStatus."""
    text = (DOCKER / "discnode.service").read_text()
    assert "RestartPreventExitStatus=2" in text
    assert "\nExecStartPre=" not in text


def test_the_container_runs_as_nobody_in_particular() -> None:
    node = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]["node"]
    assert node["read_only"] is True
    assert node["cap_drop"] == ["ALL"]
    assert "cap_add" not in node
    assert "privileged" not in node
    assert node["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in node["ports"])
    dockerfile = (DOCKER / "Dockerfile").read_text()
    user = re.search(r"^USER (\S+)$", dockerfile, re.MULTILINE)
    assert user is not None
    assert user[1] == "discnode"
    assert f"--uid {node['user'].split(':')[0]} " in dockerfile
    copied = set(re.findall(r"^COPY (\w+) \1$", dockerfile, re.MULTILINE))
    assert copied == {"config", "models", "processing", "dicom_io", "service"}


def test_the_unit_exposes_little_by_systemds_own_measure(tmp_path: Path) -> None:
    text = (DOCKER / "discnode.service").read_text()
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes", "CapabilityBoundingSet=\n"):
        assert line in text
    assert "User=discnode" in text
    if shutil.which("systemd-analyze") is None:
        return  # the lines above are what can be checked without it
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(DOCKER / "discnode.service")]
    measured = subprocess.run(command, capture_output=True, text=True, check=False)
    assert measured.returncode == 0, measured.stdout[-300:]
