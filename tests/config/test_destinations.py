from pathlib import Path

import pytest

from config.destinations import Destination, http_headers
from config.settings import SettingsError, load_settings
from service.cli import main


def service(**more: object) -> Destination:
    return Destination.model_validate({"name": "web", "dicomweb_url": "https://archive.example/dicom-web", **more})


def test_headers_come_from_the_file_and_the_environment_of_the_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "headers"
    file.touch(0o600)
    file.write_text("Authorization: Basic bWU6d29yZA==\n\nX-Tenant:  spine lab \n")
    one = service(headers_file=file)
    assert http_headers(one) == {"Authorization": "Basic bWU6d29yZA==", "X-Tenant": "spine lab"}
    file.write_text("Authorization: Bearer new\n")
    assert http_headers(one) == {"Authorization": "Bearer new"}
    monkeypatch.setenv("ARCHIVE_TOKEN", "Bearer of the environment")
    assert http_headers(service(authorization_variable="ARCHIVE_TOKEN")) == {
        "Authorization": "Bearer of the environment"
    }
    assert http_headers(service()) == {}


@pytest.mark.parametrize("content", ["secret\n", "A: \n", "A b: secret", "A: secrét", "A: b\x00secret"])
def test_a_headers_file_that_is_wrong_is_not_told(tmp_path: Path, content: str) -> None:
    file = tmp_path / "headers"
    file.touch(0o600)
    file.write_bytes(content.encode())
    with pytest.raises(SettingsError, match=r"headers_file .*/headers: ") as fault:
        http_headers(service(headers_file=file))
    assert "secr" not in str(fault.value)


def test_a_headers_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("Authorization: Bearer secret\n")
    file.chmod(0o644)
    with pytest.raises(SettingsError, match="its mode is 0644; allow its owner alone") as fault:
        http_headers(service(headers_file=file))
    assert "Bearer" not in str(fault.value)
    file.chmod(0o640)
    assert http_headers(service(headers_file=file)) == {"Authorization": "Bearer secret"}


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="absent: cannot be read"):
        http_headers(service(headers_file=tmp_path / "absent"))
    monkeypatch.delenv("ARCHIVE_TOKEN", raising=False)
    with pytest.raises(SettingsError, match="ARCHIVE_TOKEN: is not set"):
        http_headers(service(authorization_variable="ARCHIVE_TOKEN"))
    monkeypatch.setenv("ARCHIVE_TOKEN", "Bearer x\r\nHost: elsewhere")
    with pytest.raises(SettingsError, match="no header"):
        http_headers(service(authorization_variable="ARCHIVE_TOKEN"))


def test_files_are_taken_from_the_folder_of_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("destinations: [{name: a, dicomweb_url: 'https://h/w', headers_file: a.txt, ca_file: /b.pem}]\n")
    (one,) = load_settings(path).destinations
    assert (one.headers_file, one.ca_file) == (tmp_path / "a.txt", Path("/b.pem"))
    assert one.address == "https://h/w"


@pytest.mark.parametrize(
    ("url", "is_told"),
    [
        ("http://archive.example/dicom-web", True),
        ("http://10.0.0.9:8042/dicom-web", True),
        ("https://archive.example/dicom-web", False),
        ("http://127.0.0.1:8042/dicom-web", False),
        ("http://localhost/dicom-web", False),
        ("http://[::1]:8042/dicom-web", False),
    ],
)
def test_a_password_that_goes_over_plain_http_is_warned_of(
    url: str, is_told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "headers").write_text("Authorization: Basic bWU6d29yZA==\n")
    (tmp_path / "headers").chmod(0o600)
    path = tmp_path / "site.yaml"
    path.write_text(f"destinations: [{{name: archive, dicomweb_url: '{url}', headers_file: headers}}]\n")
    assert main(["check-config", str(path)]) == 0
    assert ("WARNING: the headers of archive" in capsys.readouterr().out) == is_told
    assert not service(dicomweb_url=url).tells_secrets
