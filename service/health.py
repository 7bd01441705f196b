"""Whether the node does its work."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Health:
    """What works now."""

    receiver: bool  # its process runs and answered a C-ECHO a moment ago
    workers: bool  # all worker processes run
    database: bool  # a write transaction succeeds

    @property
    def is_ready(self) -> bool:
        """Whether images can be received and analysed."""
        return self.receiver and self.workers and self.database
