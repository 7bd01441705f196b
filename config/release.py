"""When results may leave the node."""

from enum import StrEnum


class Release(StrEnum):
    """Whether a person decides first."""

    AUTOMATIC = "automatic"
    HOLD_ON_WARNING = "hold_on_warning"  # a person decides if anything is to be checked
    HOLD = "hold"  # a person decides, always
