"""The receive path: how much is taken at once, and when the node says that it cannot take more."""

from pydantic import Field, model_validator

from config.sections import Section


class Reception(Section):
    """Limits of the receive path, over all of its processes."""

    processes: int = Field(2, ge=1, le=8, description="Receiver processes on the one port")
    associations_per_host: int = Field(20, ge=1, le=1000, description="Associations served at once from one address")
    waiting_connections: int = Field(
        256, ge=1, le=10_000, description="TCP connections that have not yet asked for an association"
    )
    idle_s: float = Field(60.0, gt=0, le=3600, description="An association on which nothing comes is dropped")
    largest_object_mb: int = Field(4096, ge=1, le=65_536, description="MB; the sender of a larger object is cut off")
    full_mb: int = Field(
        1024, ge=0, description="MB free in storage_dir below which objects are refused for now (0xA700)"
    )
    closed_mb: int = Field(512, ge=0, description="MB free below which associations are refused for now")
    backlog: int = Field(
        20_000, ge=1, description="Objects received and not yet in the database above which associations are refused"
    )

    @model_validator(mode="after")
    def _closes_after_it_is_full(self) -> "Reception":
        if self.closed_mb > self.full_mb:
            raise ValueError(f"closed_mb {self.closed_mb} is more than full_mb {self.full_mb}")
        return self
