"""What the parts of the settings tree are made of."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

AETitle = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=16, pattern=r"^[^\\\x00-\x1f]+$")
]
Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
#: Root of a DICOMweb service. No user and password in it: settings are shown and kept with results.
ServiceURL = Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#@/]+(/[^\s?#@]*)?$")]


class SettingsError(Exception):
    """The settings file cannot be used; the message names file, key and what is allowed."""


class Section(BaseModel):
    """A part of the settings tree."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def with_paths_in(self, folder: Path) -> Self:
        """The same, its relative paths taken from ``folder``, at every depth."""
        moved = {name: _in_folder(getattr(self, name), folder) for name in type(self).model_fields}
        return self.model_copy(update=moved)


def _in_folder(value: Any, folder: Path) -> Any:
    if isinstance(value, Path):
        return folder / value
    if isinstance(value, Section):
        return value.with_paths_in(folder)
    return tuple(_in_folder(one, folder) for one in value) if isinstance(value, tuple) else value
