"""Why an input cannot be measured: stable reason codes, and the error that carries one."""

from dataclasses import dataclass
from enum import StrEnum


class ReasonCode(StrEnum):
    """The reason codes of the API, the log and the report. Users script against these names: never rename one."""

    ECHO_UNRESOLVED = "ECHO_UNRESOLVED"
    SERIES_INCOMPLETE = "SERIES_INCOMPLETE"
    GEOMETRY_INCONSISTENT = "GEOMETRY_INCONSISTENT"
    SCALING_UNKNOWN = "SCALING_UNKNOWN"
    UNSUPPORTED_OBJECT = "UNSUPPORTED_OBJECT"
    UNREADABLE = "UNREADABLE"
    IDENTITY_CONFLICT = "IDENTITY_CONFLICT"
    INSTANCE_CONFLICT = "INSTANCE_CONFLICT"
    PROTOCOL_UNKNOWN = "PROTOCOL_UNKNOWN"
    PROTOCOL_DEVIATION = "PROTOCOL_DEVIATION"
    SEGMENTATION_UNCERTAIN = "SEGMENTATION_UNCERTAIN"
    LEVELS_AMBIGUOUS = "LEVELS_AMBIGUOUS"
    REGISTRATION_POOR = "REGISTRATION_POOR"
    DECAY_IMPLAUSIBLE = "DECAY_IMPLAUSIBLE"
    MOTION = "MOTION"
    NOT_COMPARABLE = "NOT_COMPARABLE"
    REVIEW_REQUIRED = "REVIEW_REQUIRED"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason, in a form a person can act on. ``detail`` never holds a patient's identity."""

    code: ReasonCode
    detail: str


class UnsuitableInput(Exception):
    """The input cannot be measured as it is; tell the sender and the user, keep the data, do not retry."""

    def __init__(self, code: ReasonCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.reason = Reason(code, detail)

    def __reduce__(self) -> tuple[type["UnsuitableInput"], tuple[ReasonCode, str]]:
        return type(self), (self.reason.code, self.reason.detail)  # so it survives a process boundary
