"""Settings of the audit trail and of notifications: files beside the settings file, secrets never in it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.notifications import secret
from config.sections import SettingsError
from config.settings import load_settings

SITE = """
audit:
  syslog: {host: audit.example, ca_file: ca.pem, certificate_file: node.pem, key_file: keys/node.key}
notifications:
  webhooks:
    - {name: chat, url: "https://chat.example/hook", authorization_file: token, events: [job_parked]}
  emails:
    - {name: ward, host: mail, sender: a@example, recipients: [b@example], user: me, password_file: /run/mail}
"""


@pytest.fixture(autouse=True)
def secrets_are_the_owners() -> Iterator[None]:
    """Files with secrets that others may read are refused."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_files_are_found_beside_the_settings_file(tmp_path: Path) -> None:
    settings = load_settings(_written(tmp_path, SITE))
    syslog = settings.audit.syslog
    assert syslog is not None
    assert (syslog.ca_file, syslog.key_file) == (tmp_path / "ca.pem", tmp_path / "keys/node.key")
    assert syslog.port == 6514
    assert settings.notifications.webhooks[0].authorization_file == tmp_path / "token"
    assert settings.notifications.emails[0].password_file == Path("/run/mail")
    assert settings.notifications.emails[0].security == "starttls"


def _written(folder: Path, text: str) -> Path:
    path = folder / "site.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("audit: {syslog: {host: x, certificate_file: a.pem}}", "certificate_file and key_file go together"),
        ("notifications: {webhooks: [{name: a, url: 'https://u:p@x/'}]}", "notifications.webhooks.0.url"),
        ("notifications: {webhooks: [{name: a, url: 'https://x/', events: [all]}]}", "notifications.webhooks.0.events"),
        (
            "notifications: {webhooks: [{name: a, url: 'https://x/'}, {name: a, url: 'https://y/'}]}",
            "two webhooks or e-mails have the same name",
        ),
        ("notifications: {emails: [{name: a, host: x, sender: a@b, recipients: ['c d@e']}]}", "recipients.0"),
        ("notifications: {webhooks: [{name: a}]}", "needs one of url, url_file and url_variable"),
        ("notifications: {webhooks: [{name: a, url: 'https://x/', url_file: b}]}", "needs one of url"),
        ("logs: {format: xml}", "logs.format"),
        ("logs: {level: loud}", "logs.level"),
        ("health: {outbox_age_s: 0}", "health.outbox_age_s"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_settings(_written(tmp_path, text))
    assert message in str(refusal.value)


def test_a_secret_is_read_anew_each_time_and_never_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text("Bearer one\n")
    assert secret(file, None) == "Bearer one"
    file.write_text("Bearer two")
    assert secret(file, None) == "Bearer two"
    monkeypatch.setenv("TOKEN", "three")
    assert secret(None, "TOKEN") == "three"
    assert secret(None, None) is None
    for bad in ("", "two\nlines-of-s3cret", "s3cret\x07"):
        file.write_text(bad)
        with pytest.raises(SettingsError) as refusal:
            secret(file, None)
        assert "s3cret" not in str(refusal.value)
    monkeypatch.delenv("TOKEN")
    with pytest.raises(SettingsError, match="environment variable TOKEN"):
        secret(None, "TOKEN")
