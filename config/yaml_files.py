"""A YAML file as a checked record; what is wrong is told by file, key and what is allowed."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ValidationError

from config.sections import Section, SettingsError
from config.settings import explain

_Checked = TypeVar("_Checked", bound=Section)


def read_section(path: Path, model: type[_Checked]) -> _Checked:
    """Read and check a file.

    Raises:
        SettingsError: naming file, key, what was found and what is allowed.
    """
    try:
        return parse_section(path.read_bytes(), path, model)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error


def parse_section(text: bytes, path: Path, model: type[_Checked]) -> _Checked:
    """As :func:`read_section`, of a file's bytes that are at hand.

    Raises:
        SettingsError: as there.
    """
    try:
        content = yaml.safe_load(text.decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: must hold a plan as 'key: value' lines")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise SettingsError("\n".join(explain(path, error, model))) from error
