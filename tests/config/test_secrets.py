"""No setting takes a secret, and no file with one may be read by others."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from config.secret_files import read_secret
from config.settings import Settings, SettingsError, load_settings

#: What a setting that takes a secret would be called.
SECRET = re.compile(r"pass(word|phrase)|secret|token|credential|authoriz|api_?key|private|(^|_)key(_|$)|headers")


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every key of the settings tree, those of lists and of what may be absent too."""
    for name, field in model.model_fields.items():
        yield prefix + name, field.annotation
        for section in sections(field.annotation):
            yield from fields(section, f"{prefix}{name}.")


def sections(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from sections(part)


def test_no_setting_takes_a_secret_itself() -> None:
    named = {key: annotation for key, annotation in fields(Settings) if SECRET.search(key.rpartition(".")[2])}
    assert {"tls.key_file", "web.tokens_file", "web.proxy.secret_variable", "destinations.headers_file"} <= set(named)
    assert [key for key in named if not key.endswith(("_file", "_variable"))] == []
    assert [key for key, kind in named.items() if key.endswith("_file") and "Path" not in str(kind)] == []


@pytest.mark.parametrize(
    "url", ["postgresql://node:hush@db/discnode", "postgresql://db/discnode?user=node&password=hush"]
)
def test_a_password_in_a_database_address_is_refused(tmp_path: Path, url: str) -> None:
    config = tmp_path / "site.yaml"
    config.write_text(f"database_url: {url}\n")
    with pytest.raises(SettingsError, match=r"database_url: .*PGPASSFILE") as fault:
        load_settings(config)
    assert "hush" not in str(fault.value)
    config.write_text("database_url: postgresql://node@db/discnode\n")
    assert load_settings(config).database_url == "postgresql://node@db/discnode"


def test_a_user_and_password_in_the_address_of_a_service_are_refused_and_not_told(tmp_path: Path) -> None:
    config = tmp_path / "site.yaml"
    config.write_text("destinations: [{name: a, dicomweb_url: 'https://me:hush@h/w'}]\n")
    with pytest.raises(SettingsError, match=r"dicomweb_url") as fault:
        load_settings(config)
    assert "hush" not in str(fault.value)


@pytest.mark.parametrize(
    ("mode", "content", "fault"),
    [
        (0o644, "s", "its mode is 0644"),
        (0o604, "s", "its mode is 0604"),
        (0o620, "s", "its mode is 0620"),
        (0o600, "", "must hold one line"),
        (0o600, "two\nlines\n", "must hold one line"),
        (0o600, "hush", None),
        (0o640, " hush \n", None),
        (0o400, "hush\n", None),
    ],
)
def test_a_secret_is_one_line_in_a_file_of_its_owners(
    tmp_path: Path, mode: int, content: str, fault: str | None
) -> None:
    file = tmp_path / "secret"
    file.write_text(content)
    file.chmod(mode)
    if fault is None:
        assert read_secret(file) == "hush"
    else:
        with pytest.raises(SettingsError, match=fault):
            read_secret(file)
