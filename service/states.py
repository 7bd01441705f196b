"""The lives of the things the node keeps: one table of states and allowed moves each. An unlisted move is an error."""

from collections.abc import Mapping
from enum import StrEnum


class ForbiddenMove(Exception):
    """A thing was asked to change to a state that its table does not allow from where it is."""


class InstanceState(StrEnum):
    """A received object."""

    RECEIVED = "received"  # durable, acknowledged, header not yet read
    INDEXED = "indexed"  # header read, part of its exam
    PENDING = "pending"  # a segmentation that came back; whether it fits its exam is not yet known
    CORRECTION = "correction"  # a segmentation that came back, whose discs are measured
    HELD = "held"  # in quarantine
    SET_ASIDE = "set_aside"  # a person decided that it is not used, or it is there in another encoding; kept
    DELETING = "deleting"  # its exam has had its time: its file is being deleted
    DELETED = "deleted"  # its file is gone; it may come again


#: Of segmentations that came back and are neither held nor set aside.
SEGMENTATION_STATES = (InstanceState.PENDING, InstanceState.CORRECTION)


#: Its file was deleted by retention, or is going.
GONE = (InstanceState.DELETING, InstanceState.DELETED)


class ExamState(StrEnum):
    """The images of one study, as far as the node measures them."""

    COLLECTING = "collecting"  # images arrived that have not been judged, or more are awaited
    INCOMPLETE = "incomplete"  # silence, and images are missing
    HELD = "held"  # a conflict that a person must settle
    QUEUED = "queued"  # its job waits or runs
    ANALYSED = "analysed"
    REFUSED = "refused"  # cannot be measured as it is
    FAILED = "failed"  # its job is parked
    JOINED = "joined"  # its images are measured with those of another study of the subject


class JobState(StrEnum):
    """One analysis of one set of images."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # parked after the last attempt
    SUPERSEDED = "superseded"  # more images came before it ran, or its exam was held


class FilesState(StrEnum):
    """The result files of a job that retention takes; empty while they are there."""

    DELETING = "deleting"
    DELETED = "deleted"


class DeliveryState(StrEnum):
    """One object on its way to one destination."""

    HELD = "held"  # a person, a trial or both must let it go first
    WAITING = "waiting"
    REJECTED = "rejected"  # a person said no, a newer version took its place, or it was recalled: never sent (again)
    SENT = "sent"  # the peer answered Success or a warning, which is no proof that it has it
    CONFIRMED = "confirmed"  # the destination has it: it says so in a commitment, or shows it in a query
    GIVEN_UP = "given_up"  # a person decided, with a reason, that it does not go there


class AskedState(StrEnum):
    """A storage commitment request of ours."""

    OPEN = "open"  # asked, or about to be
    ANSWERED = "answered"
    LOST = "lost"  # no result came in time, or the request was not taken; a result that comes later still counts


class CommitmentState(StrEnum):
    """The answer to a storage commitment request."""

    WAITING = "waiting"
    REPORTED = "reported"  # the sender has taken the result
    UNREPORTABLE = "unreportable"  # its association has ended and no address of it is known


class QuarantineState(StrEnum):
    """Something held, with a reason."""

    HELD = "held"
    RELEASED = "released"
    DISCARDED = "discarded"
    RESOLVED = "resolved"  # what was missing came


class SubjectState(StrEnum):
    """A subject of a trial."""

    ACTIVE = "active"
    WITHDRAWN = "withdrawn"  # no visit is expected any more; what was measured stays


class VisitState(StrEnum):
    """An exam that was taken for a visit of a subject."""

    HELD = "held"  # a person must say whose it is, which visit, or whether it counts
    AWAITED = "awaited"  # its exam is not measured yet
    MEASURED = "measured"  # its result counts
    NOT_EVALUABLE = "not_evaluable"  # refused, or a person said so: a value that is missing for a reason
    SET_ASIDE = "set_aside"  # does not count: another scan of the visit does, or it is not the subject's; kept


class QueryState(StrEnum):
    """A question to a site."""

    OPEN = "open"
    RESOLVED = "resolved"


Moves = Mapping[StrEnum, frozenset[StrEnum]]

_I, _E, _J, _D, _Q = InstanceState, ExamState, JobState, DeliveryState, QuarantineState

INSTANCE_MOVES: Moves = {
    _I.RECEIVED: frozenset({_I.INDEXED, _I.PENDING, _I.HELD, _I.SET_ASIDE}),
    _I.INDEXED: frozenset({_I.HELD, _I.SET_ASIDE, _I.DELETING}),
    _I.PENDING: frozenset({_I.CORRECTION, _I.HELD, _I.SET_ASIDE}),
    _I.CORRECTION: frozenset({_I.HELD, _I.SET_ASIDE, _I.DELETING}),
    _I.HELD: frozenset({_I.RECEIVED, _I.SET_ASIDE}),
    _I.SET_ASIDE: frozenset({_I.DELETING}),
    _I.DELETING: frozenset({_I.DELETED, _I.RECEIVED}),
    _I.DELETED: frozenset({_I.RECEIVED}),
}

_JUDGED = frozenset({_E.INCOMPLETE, _E.HELD, _E.QUEUED, _E.ANALYSED, _E.REFUSED, _E.FAILED, _E.JOINED})
EXAM_MOVES: Moves = {
    _E.COLLECTING: _JUDGED,
    _E.INCOMPLETE: frozenset({_E.COLLECTING}),
    _E.HELD: frozenset({_E.COLLECTING}),
    _E.QUEUED: frozenset({_E.COLLECTING, _E.ANALYSED, _E.REFUSED, _E.FAILED}),
    _E.ANALYSED: frozenset(
        {_E.COLLECTING, _E.QUEUED}
    ),  # queued: a person has named the lowest disc, or corrected discs
    _E.REFUSED: frozenset({_E.COLLECTING, _E.QUEUED}),
    _E.FAILED: frozenset({_E.COLLECTING, _E.QUEUED}),
    _E.JOINED: frozenset({_E.COLLECTING}),
}

JOB_MOVES: Moves = {
    _J.QUEUED: frozenset({_J.RUNNING, _J.SUPERSEDED}),
    _J.RUNNING: frozenset({_J.DONE, _J.QUEUED, _J.FAILED, _J.SUPERSEDED}),
    _J.DONE: frozenset(),
    _J.FAILED: frozenset({_J.QUEUED, _J.SUPERSEDED}),
    _J.SUPERSEDED: frozenset(),
}

DELIVERY_MOVES: Moves = {
    _D.HELD: frozenset({_D.WAITING, _D.REJECTED, _D.GIVEN_UP}),
    _D.WAITING: frozenset({_D.SENT, _D.HELD, _D.REJECTED, _D.GIVEN_UP}),
    # waiting: it was not there, or a person wants it sent again; rejected: recalled
    _D.SENT: frozenset({_D.CONFIRMED, _D.WAITING, _D.REJECTED, _D.GIVEN_UP}),
    _D.CONFIRMED: frozenset({_D.WAITING, _D.REJECTED}),
    _D.REJECTED: frozenset({_D.HELD, _D.WAITING}),  # the same object again, after a version that took its place
    # a person wants it sent after all: it goes, or waits for a decision as before; or it is recalled
    _D.GIVEN_UP: frozenset({_D.WAITING, _D.HELD, _D.REJECTED}),
}

ASKED_MOVES: Moves = {
    AskedState.OPEN: frozenset({AskedState.ANSWERED, AskedState.LOST}),
    AskedState.LOST: frozenset({AskedState.ANSWERED}),
    AskedState.ANSWERED: frozenset(),
}

COMMITMENT_MOVES: Moves = {
    CommitmentState.WAITING: frozenset({CommitmentState.REPORTED, CommitmentState.UNREPORTABLE}),
    CommitmentState.REPORTED: frozenset({CommitmentState.WAITING}),  # the sender asks again
    CommitmentState.UNREPORTABLE: frozenset({CommitmentState.WAITING}),
}

QUARANTINE_MOVES: Moves = {
    _Q.HELD: frozenset({_Q.RELEASED, _Q.DISCARDED, _Q.RESOLVED}),
    _Q.RELEASED: frozenset(),
    _Q.DISCARDED: frozenset(),
    _Q.RESOLVED: frozenset(),
}

SUBJECT_MOVES: Moves = {
    SubjectState.ACTIVE: frozenset({SubjectState.WITHDRAWN}),
    SubjectState.WITHDRAWN: frozenset({SubjectState.ACTIVE}),
}

_V = VisitState
VISIT_MOVES: Moves = {
    _V.HELD: frozenset({_V.AWAITED, _V.MEASURED, _V.NOT_EVALUABLE, _V.SET_ASIDE}),
    _V.AWAITED: frozenset({_V.HELD, _V.MEASURED, _V.NOT_EVALUABLE, _V.SET_ASIDE}),
    _V.MEASURED: frozenset({_V.HELD, _V.AWAITED, _V.NOT_EVALUABLE, _V.SET_ASIDE}),
    _V.NOT_EVALUABLE: frozenset({_V.HELD, _V.AWAITED, _V.MEASURED, _V.SET_ASIDE}),
    _V.SET_ASIDE: frozenset({_V.HELD, _V.AWAITED, _V.MEASURED, _V.NOT_EVALUABLE}),
}

QUERY_MOVES: Moves = {
    QueryState.OPEN: frozenset({QueryState.RESOLVED}),
    QueryState.RESOLVED: frozenset({QueryState.OPEN}),
}

_TABLES: Mapping[type[StrEnum], Moves] = {
    InstanceState: INSTANCE_MOVES,
    ExamState: EXAM_MOVES,
    JobState: JOB_MOVES,
    DeliveryState: DELIVERY_MOVES,
    AskedState: ASKED_MOVES,
    CommitmentState: COMMITMENT_MOVES,
    QuarantineState: QUARANTINE_MOVES,
    SubjectState: SUBJECT_MOVES,
    VisitState: VISIT_MOVES,
    QueryState: QUERY_MOVES,
}


def check_move(current: StrEnum, new: StrEnum) -> None:
    """Pass if the table of their kind allows the move.

    Raises:
        ForbiddenMove: it does not, or the two states belong to different kinds of things.
    """
    if type(current) is not type(new) or new not in _TABLES[type(current)][current]:
        raise ForbiddenMove(f"{type(current).__name__}: {current} -> {new}")


def predecessors(new: StrEnum) -> tuple[StrEnum, ...]:
    """The states from which a thing may move to ``new``."""
    return tuple(state for state, allowed in _TABLES[type(new)].items() if new in allowed)
