from enum import StrEnum
from itertools import product

import pytest

from service.states import (
    AskedState,
    CommitmentState,
    DeliveryState,
    ExamState,
    ForbiddenMove,
    InstanceState,
    JobState,
    QuarantineState,
    QueryState,
    SubjectState,
    VisitState,
    check_move,
    predecessors,
)

KINDS = (
    *(InstanceState, ExamState, JobState, DeliveryState, QuarantineState, AskedState, CommitmentState),
    *(SubjectState, VisitState, QueryState),
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_move_is_either_listed_or_an_error(kind: type[StrEnum]) -> None:
    for current, new in product(kind, kind):
        if current in predecessors(new):
            check_move(current, new)
        else:
            with pytest.raises(ForbiddenMove, match=f"{current} -> {new}"):
                check_move(current, new)


def test_what_is_over_stays_over() -> None:
    for ended in (JobState.DONE, JobState.SUPERSEDED, AskedState.ANSWERED, QuarantineState.DISCARDED):
        for new in type(ended):
            with pytest.raises(ForbiddenMove):
                check_move(ended, new)


def test_an_image_can_always_reopen_its_exam() -> None:
    assert set(predecessors(ExamState.COLLECTING)) == set(ExamState) - {ExamState.COLLECTING}


def test_states_of_two_kinds_do_not_mix() -> None:
    with pytest.raises(ForbiddenMove):
        check_move(JobState.QUEUED, ExamState.ANALYSED)
