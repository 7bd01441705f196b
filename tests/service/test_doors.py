"""What check-config and the start of the node say of who is let in."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from certificates import Authority
from node_process import TESTS

from config.notifications import secret
from config.settings import Settings, SettingsError
from service.cli import main
from service.doors import check_doors, watch_certificates


def notes(**settings: object) -> str:
    return "\n".join(check_doors(Settings.model_validate(settings)))


def test_a_node_that_serves_nobody_else_says_so() -> None:
    assert "nobody but callers on this machine is served" in notes(bind="0.0.0.0")
    sources = [{"name": "p", "ae_title": "PACS", "host": "10.0.0.5", "port": 104}]
    assert "and the sources is served" in notes(bind="0.0.0.0", sources=sources)
    assert "served" not in notes()


def test_a_peer_that_may_be_anyone_is_told() -> None:
    told = notes(bind="0.0.0.0", peers=[{"ae_title": "MR"}, {"ae_title": "CT", "host": "10.0.0.7"}])
    assert "peer MR has no host: whoever says that AE title is served" in told
    assert "peer CT is told by its address alone" in told


def test_check_config_tells_who_is_served_and_shows_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("node")
    headers, secret = tmp_path / "headers", tmp_path / "secret"
    for file, content in ((headers, "Authorization: Bearer HUSH1"), (secret, "HUSH2")):
        file.touch(0o600)
        file.write_text(content)
    monkeypatch.setenv("ARCHIVE", "Bearer HUSH3")
    tls = {"certificate_file": own.certificate_file.name, "key_file": own.key_file.name, "ca_file": "ca.pem"}
    content = {
        "bind": "0.0.0.0",
        "tls": tls,
        "peers": [{"ae_title": "MR3T", "host": "10.0.0.20", "certificate": own.sha256}],
        "destinations": [
            {"name": "a", "dicomweb_url": "https://a.example/w", "headers_file": "headers"},
            {"name": "b", "dicomweb_url": "https://b.example/w", "authorization_variable": "ARCHIVE"},
            {"name": "c", "ae_title": "C", "host": "c", "port": 2762, "tls": tls},
        ],
        "web": {"access": "proxy", "proxy": {"addresses": ["127.0.0.1"], "secret_file": "secret"}},
    }
    config = tmp_path / "site.yaml"
    config.write_text(json.dumps(content))
    assert main(["check-config", str(config)]) == 0
    out, err = capsys.readouterr()
    assert "listens by TLS (bcp195) on 0.0.0.0:2762" in out
    assert "serves MR3T" in out
    assert "HUSH" not in out + err
    own.key_file.chmod(0o644)
    assert main(["check-config", str(config)]) == 2
    assert "node.key: holds a secret, but its mode is 0644" in capsys.readouterr().err


def test_certificates_are_watched(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("node")
    settings = Settings.model_validate(
        {
            "tls": {"certificate_file": own.certificate_file, "key_file": own.key_file, "ca_file": authority.ca_file},
            "destinations": [
                {"name": "a", "ae_title": "A", "host": "h", "port": 104, "tls": {"ca_file": authority.ca_file}}
            ],
        }
    )
    look = watch_certificates(settings)
    assert look() == ""
    authority.issue("node", days=20)
    assert "node.crt ends on 20" in look()
    assert "node.crt ends on 20" in "".join(check_doors(settings))
    authority.issue("node", is_expired=True)
    assert "node.crt has ended" in look()
    authority.issue("node")
    own.key_file.write_text("x")
    assert "node.key: cannot be used" in look()
    authority.issue("node")
    authority.ca_file.unlink()
    assert "ca.pem" in look()


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"web": {"port": 8080, "bind": "0.0.0.0"}}, "reachable from other machines"),
        ({"tls": {"certificate_file": "absent", "key_file": "absent", "ca_file": "absent"}}, "absent: cannot be read"),
    ],
)
def test_a_node_with_a_door_that_cannot_be_shut_does_not_start(
    tmp_path: Path, settings: dict[str, object], fault: str
) -> None:
    config = tmp_path / "node.yaml"
    config.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "service.cli", "serve", "--config", str(config)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=TESTS.parent)
    assert ended.returncode == 2
    assert fault in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "discnode-data").exists()


def test_the_keys_of_the_audit_repository_and_the_passwords_of_notifications_are_looked_at_too(tmp_path: Path) -> None:
    """Those that others may read were taken, and an authority's file that is not there was no fault."""
    key = Authority(tmp_path).issue("node")
    syslog = {"host": "audit", "certificate_file": key.certificate_file, "key_file": key.key_file}
    assert "served" not in notes(audit={"syslog": syslog})
    with pytest.raises(SettingsError, match="its certificates cannot be used"):
        notes(audit={"syslog": {**syslog, "ca_file": tmp_path / "none.pem"}})
    key.key_file.chmod(0o644)
    with pytest.raises(SettingsError, match="0644"):
        notes(audit={"syslog": syslog})
    password = tmp_path / "password"
    password.write_text("x")
    password.chmod(0o644)
    with pytest.raises(SettingsError, match="0644"):
        secret(password, None)
