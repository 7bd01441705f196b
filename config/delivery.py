"""How results are delivered, when a delivery counts as confirmed, and the nightly comparison with the destinations."""

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from config.sections import Section


class Confirm(StrEnum):
    """What confirms that a destination has an object."""

    AUTO = "auto"  # storage commitment where the destination takes part in it, else a query
    COMMITMENT = "commitment"
    QUERY = "query"
    NONE = "none"


class Delivery(Section):
    """The outbox."""

    first_retry_s: float = Field(5.0, gt=0, le=3600, description="Seconds before the first retry; doubles each time")
    longest_retry_s: float = Field(900.0, gt=0, le=86_400, description="Longest wait between tries; retries never end")
    timeout_s: float = Field(30.0, gt=0, le=600, description="Network and response timeout")
    confirm_after_s: float = Field(
        2.0, ge=0, le=3600, description="Seconds after sending before a destination is asked whether it has an object"
    )
    unseen_after_s: float = Field(
        300.0,
        ge=0,
        le=86_400,
        description="An object that the destination's answers have not shown for so long after sending is sent again",
    )
    commitment_wait_s: float = Field(
        600.0, ge=1, le=86_400, description="Seconds to wait for the result of a storage commitment request; doubles"
    )

    @model_validator(mode="after")
    def _waits_grow(self) -> "Delivery":
        if self.first_retry_s > self.longest_retry_s:
            waits = f"first_retry_s {self.first_retry_s:g} is more than longest_retry_s {self.longest_retry_s:g}"
            raise ValueError(waits)
        return self


def _as_written(value: object) -> object:
    if isinstance(value, int):  # YAML reads 13:00 as 780
        raise ValueError('write the time in quotation marks, such as "03:00"')
    return value


class Reconciliation(Section):
    """The nightly comparison of what was sent with what the destinations have."""

    at: (
        Annotated[str, BeforeValidator(_as_written), StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
        | None
    ) = Field("03:00", description="Local time of the day, hours and minutes; empty = never by itself")
    days: int = Field(90, ge=1, le=36_500, description="Objects that were sent in so many days are compared")
