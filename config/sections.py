"""What the parts of the settings tree are made of."""

from typing import Annotated

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
