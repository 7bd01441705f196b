"""The queue of analyses."""

from pydantic import Field

from config.sections import Section


class Jobs(Section):
    """The queue of analyses."""

    workers: int = Field(1, ge=1, le=64, description="Worker processes, each at most 3 GB")
    attempts: int = Field(5, ge=1, le=20, description="How often a job is tried before it is parked")
    retry_s: float = Field(
        10.0,
        ge=0,
        le=3600,
        description="Seconds before a job's third try, doubled each time up to an hour; the second comes at once",
    )
    lease_s: float = Field(60.0, ge=5, le=3600, description="A job whose worker was silent so long goes to another")
