"""When results may leave the node."""

from enum import StrEnum


class Release(StrEnum):
    """Whether a person decides first. In order, the stricter later."""

    AUTOMATIC = "automatic"
    HOLD_ON_WARNING = "hold_on_warning"  # a person decides if anything is to be checked
    HOLD = "hold"  # a person decides, always


def strictest(*releases: Release) -> Release:
    """The strictest of several; automatic where there is none."""
    order = list(Release)
    return max(releases, key=order.index, default=Release.AUTOMATIC)
