"""What the log lines look like."""

from typing import Literal

from pydantic import Field

from config.sections import Section


class LogSettings(Section):
    """The log on stderr: one event a line."""

    format: Literal["text", "json"] = Field("text", description="text: key=value pairs; json: one object a line")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is written")
