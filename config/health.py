"""When the node calls itself ready, and when it says that something else needs a look."""

from pydantic import Field

from config.sections import Section


class HealthSettings(Section):
    """The limits of the checks behind /health/ready."""

    min_free_mb: int = Field(
        1024,
        ge=0,
        le=10_000_000,
        description="Less free space (MB) where the storage folder is: not ready; 0 = unchecked",
    )
    outbox_age_s: float = Field(
        3600.0, gt=0, le=2_592_000, description="A result that waits longer for its destination: degraded"
    )
