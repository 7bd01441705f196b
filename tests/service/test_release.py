"""Nothing that is held leaves before a person has signed for it; a new version makes an approval void."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from records import NOW, later
from release_desk import MEANING, PLAN, Node, signing
from sqlalchemy import insert, select, update

from config.release import Release, strictest
from processing.results import Verdict
from service import database as db
from service import holds, queries, recall, release
from service import trial_tables as trials
from service.database import Database
from service.deliveries import NotReleased, list_deliveries, send_again, send_now
from service.delivery import deliver_due
from service.giving_up import give_up
from service.outbox import Parcel, put_in_outbox
from service.reconciliation import reconcile
from service.release import CannotDecide, Target
from service.signatures import CannotSign
from service.states import DeliveryState, VisitState
from tests.peers import Storescp


@pytest.fixture(scope="module")
def scp(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Storescp(tmp_path_factory.mktemp("scp")) as one:
        yield one


_numbers = itertools.count()


@pytest.fixture
def study() -> str:
    return f"1.2.3.{next(_numbers)}"


def arrived(scp: Storescp, study: str) -> int:
    """Objects of the study that lie at the destination."""
    return sum(f".{study}." in path.name or path.name.endswith(study) for path in scp.files)


@pytest.mark.parametrize(
    ("rule", "verdict", "is_held"),
    [
        ("automatic", Verdict.OK, False),
        ("automatic", Verdict.NEEDS_REVIEW, False),
        ("hold_on_warning", Verdict.OK, False),
        ("hold_on_warning", Verdict.NEEDS_REVIEW, True),
        ("hold", Verdict.OK, True),
        ("hold", Verdict.NEEDS_REVIEW, True),
    ],
)
def test_a_routes_rule_and_the_verdict_decide(
    tmp_path: Path, scp: Storescp, study: str, rule: str, verdict: Verdict, is_held: bool
) -> None:
    node = Node(tmp_path, scp, rule)
    job = node.finish(verdict, study=study)
    assert node.states(job) == {"held" if is_held else "waiting"}
    assert node.deliver() == (0 if is_held else 2)
    assert arrived(scp, study) == (0 if is_held else 2)
    assert len(release.list_held(node.database)) == is_held


def test_nothing_leaves_before_the_signature_whatever_is_asked_for(tmp_path: Path, scp: Storescp, study: str) -> None:
    node = Node(tmp_path, scp, "hold")
    job = node.finish(study=study)
    assert send_now(node.database, "pacs", later(60)) == 0
    with pytest.raises(NotReleased, match="released by a person alone"):
        send_again(node.database, list_deliveries(node.database)[0].id, later(60))
    reconcile(node.database, node.destination, node.settings)
    assert node.deliver() == 0
    node.restart()
    assert node.deliver() == 0
    assert arrived(scp, study) == 0

    assert release.approve(node.database, Target("job", job), signing()) == 2
    node.restart()  # between the decision and the delivery
    assert node.deliver() == 2
    assert arrived(scp, study) == 2
    assert node.states(job) == {"sent"}


@pytest.mark.parametrize("changes", [{"by": " "}, {"meaning": ""}, {"reason": "\t"}, {"meaning": "x" * 256}])
def test_a_signature_without_name_meaning_or_reason_is_refused(
    tmp_path: Path, scp: Storescp, study: str, changes: dict[str, str]
) -> None:
    node = Node(tmp_path, scp, "hold_on_warning")
    job = node.finish(Verdict.NEEDS_REVIEW, study=study)
    with pytest.raises(CannotSign):
        release.approve(node.database, Target("job", job), signing(**changes))
    with pytest.raises(CannotSign):
        release.reject(node.database, Target("job", job), signing(code="MOTION", **changes))
    assert node.states(job) == {"held"}
    with node.database.read() as connection:
        assert connection.execute(select(trials.signature)).all() == []


def test_a_signature_tells_who_when_what_and_of_which_bytes(tmp_path: Path, scp: Storescp, study: str) -> None:
    node = Node(tmp_path, scp, "hold")
    job = node.finish(study=study)
    item = release.get_item(node.database, Target("job", job))
    assert item is not None
    seen = release.describe(node.database, item)["content_sha256"]
    with pytest.raises(CannotDecide, match="not what you looked at"):
        release.approve(node.database, Target("job", job), signing(content_sha256="0" * 64))
    release.approve(node.database, Target("job", job), signing(content_sha256=seen))
    (signature,) = release.describe(node.database, item)["signatures"]
    assert signature["decision"] == "approved"
    assert signature["signed_by"] == "Dr Reader"
    assert signature["signed_at"] == later(60).isoformat()
    assert signature["meaning"] == MEANING
    assert signature["content_sha256"] == seen


def test_an_object_whose_file_changed_after_its_approval_does_not_leave(
    tmp_path: Path, scp: Storescp, study: str
) -> None:
    node = Node(tmp_path, scp, "hold")
    job = node.finish(study=study)
    release.approve(node.database, Target("job", job), signing())
    first = list_deliveries(node.database)[0]
    path = node.settings.storage_dir / first.path
    path.write_bytes(path.read_bytes() + b"\0\0")
    assert node.deliver() == 1
    assert node.states(job) == {"sent", "held"}
    assert list_deliveries(node.database)[0].held_for == "its file is not the one that was approved"


def test_a_new_version_makes_the_approval_void(tmp_path: Path, scp: Storescp, study: str) -> None:
    node = Node(tmp_path, scp, "hold_on_warning")
    first = node.finish(Verdict.NEEDS_REVIEW, study=study)
    release.approve(node.database, Target("job", first), signing())
    second = node.finish(Verdict.OK, study=study)  # no warning, and yet a person decides again
    assert node.states(first) == {"rejected"}
    assert node.states(second) == {"held"}
    assert node.deliver() == 0
    with pytest.raises(CannotDecide, match="nothing of job"):
        release.approve(node.database, Target("job", first), signing())
    release.approve(node.database, Target("job", second), signing())
    assert node.deliver() == 2
    assert arrived(scp, study) == 2


def test_a_held_version_gives_way_to_a_clean_one(tmp_path: Path, scp: Storescp, study: str) -> None:
    node = Node(tmp_path, scp, "hold_on_warning")
    first = node.finish(Verdict.NEEDS_REVIEW, study=study)
    second = node.finish(Verdict.OK, study=study)
    assert node.states(first) == {"rejected"}
    assert node.states(second) == {"waiting"}
    (superseded, *_) = list_deliveries(node.database, state=DeliveryState.REJECTED)
    assert superseded.held_for == "version 2 took its place"


def test_what_is_rejected_never_leaves(tmp_path: Path, scp: Storescp, study: str) -> None:
    node = Node(tmp_path, scp, "hold")
    job = node.finish(study=study)
    with pytest.raises(CannotSign, match="coded reason"):
        release.reject(node.database, Target("job", job), signing())
    assert release.reject(node.database, Target("job", job), signing(code="MOTION")) == 2
    with pytest.raises(CannotDecide):
        release.approve(node.database, Target("job", job), signing())
    with pytest.raises(NotReleased, match="rejected: MOTION"):
        send_again(node.database, list_deliveries(node.database)[0].id, later(60))
    send_now(node.database, "pacs", later(60))
    assert node.deliver() == 0
    assert arrived(scp, study) == 0


def test_an_open_query_keeps_a_result_until_it_is_resolved(tmp_path: Path, scp: Storescp, study: str) -> None:
    node = Node(tmp_path, scp, "hold")
    job = node.finish(study=study)
    with pytest.raises(CannotSign, match="coded reason"):
        release.ask_site(node.database, Target("job", job), signing(code="WHY"), later(0).date())
    number = release.ask_site(node.database, Target("job", job), signing(code="TSL_UNKNOWN"), later(0).date())
    with pytest.raises(CannotDecide, match="open query"):
        release.approve(node.database, Target("job", job), signing())
    with pytest.raises(CannotSign, match="resolution"):
        queries.resolve(node.database, number, signing(code="FINE"))
    queries.resolve(node.database, number, signing(code="ACCEPTED"))
    with pytest.raises(queries.NoSuchQuery):
        queries.resolve(node.database, number, signing(code="ACCEPTED"))
    (query,) = queries.list_queries(node.database)
    assert (query.state, query.resolution, query.due_on) == ("resolved", "ACCEPTED", "2026-03-01")
    assert release.approve(node.database, Target("job", job), signing()) == 2


@pytest.mark.parametrize("route", list(Release))
@pytest.mark.parametrize("plan", list(Release))
@pytest.mark.parametrize("has_warning", [False, True])
def test_of_route_and_trial_the_stricter_counts(
    tmp_path: Path, scp: Storescp, study: str, route: Release, plan: Release, has_warning: bool
) -> None:
    node = Node(tmp_path, scp, route)
    trial = PLAN.model_copy(update={"release": plan})
    job = node.finish(study=study, trial=trial)
    assert node.states(job) == {"held"}  # whatever the rules say: it is not known whose it is
    with pytest.raises(CannotDecide, match="not yet taken for a visit"):
        release.approve(node.database, Target("job", job), signing())
    node.take_for_visit(job, *(["clock: 4 h from the baseline's"] if has_warning else []), plan=trial)
    rule = strictest(route, plan)
    is_held = rule is Release.HOLD or (rule is Release.HOLD_ON_WARNING and has_warning)
    assert node.states(job) == {"held" if is_held else "waiting"}


def test_settling_again_judges_what_has_not_left(tmp_path: Path, scp: Storescp, study: str) -> None:
    node = Node(tmp_path, scp, "automatic")
    job = node.finish(study=study, trial=PLAN)
    node.take_for_visit(job)
    assert node.states(job) == {"waiting"}
    node.take_for_visit(job, "the scanner is another than at the baseline")
    assert node.states(job) == {"held"}
    release.approve(node.database, Target("job", job), signing())
    node.take_for_visit(job, "the scanner is another than at the baseline")
    assert node.states(job) == {"waiting"}
    with node.database.write() as connection:
        holds.unsettle(connection, job, "it is not known whose exam it is")
    assert node.states(job) == {"held"}  # that a person approved the discs says nothing of whose they are
    assert node.deliver() == 0
    node.take_for_visit(job, "the scanner is another than at the baseline")
    assert node.states(job) == {"waiting"}  # and yet the approval stands


def test_a_recall_lists_all_that_was_ever_sent_and_stops_the_rest(tmp_path: Path, scp: Storescp, study: str) -> None:
    node = Node(tmp_path, scp, "automatic")
    sent = node.finish(study=study)
    assert node.deliver() == 2
    waiting = node.finish(study=study)
    add_visit(node.database, study)
    with node.database.write() as connection:  # as retention leaves it
        connection.execute(update(db.job).where(db.job.c.id == sent).values(files="deleted"))
    assert recall.list_sent(node.database, recall.Selection(job_id=sent)).stopped == ()

    with pytest.raises(CannotSign):
        recall.recall(node.database, recall.Selection(study_uid=study), signing(meaning=""))
    with pytest.raises(recall.NothingThere):
        recall.recall(node.database, recall.Selection(subject="R-002", trial="DISC-1"), signing())
    found = recall.recall(node.database, recall.Selection(subject="R-001", trial="DISC-1"), signing())
    assert {one["sop_instance_uid"] for one in found.sent} == {f"{study}.1.0", f"{study}.1.1"}
    assert {one["study_instance_uid"] for one in found.sent} == {study}
    assert {one["sop_instance_uid"] for one in found.stopped} == {f"{study}.2.0", f"{study}.2.1"}
    assert len(found.to_csv().splitlines()) == 1 + 4
    assert node.states(sent) == node.states(waiting) == {"rejected"}
    reconcile(node.database, node.destination, node.settings)
    assert node.deliver() == 0
    third = node.finish(study=study)
    assert node.states(third) == {"held"}  # nothing of this exam goes again without a person


def add_visit(database: Database, study: str) -> None:
    """The study's exam is subject R-001's baseline in DISC-1."""
    with database.write() as connection:
        exam = connection.execute(select(db.exam.c.id).where(db.exam.c.study_uid == study)).scalar_one()
        trial = {"protocol_id": "DISC-1", "plan": "", "plan_sha256": "", "file": "", "registered_at": NOW}
        connection.execute(insert(trials.trial).values(id=1, **trial))
        subject = {"trial_id": 1, "subject_id": "R-001", "site_id": "S1", "state": "active", "created_at": NOW}
        connection.execute(insert(trials.subject).values(id=1, **subject))
        visit = {"subject_id": 1, "name": "BL", "exam_id": exam, "state": str(VisitState.MEASURED)}
        connection.execute(insert(trials.visit).values(**visit, assigned_by="person", changed_at=NOW))


def test_what_is_stopped_while_a_batch_is_under_way_stays_here(tmp_path: Path, scp: Storescp, study: str) -> None:
    node = Node(tmp_path, scp, "automatic")
    job = node.finish(study=study)
    times = iter(range(100, 200))

    def now() -> Any:  # after the first object has been answered, and before the second is sent
        second = next(times)
        if arrived(scp, study) == 1 and node.states(job) == {"waiting"}:
            release.reject(node.database, Target("job", job), signing(code="WRONG_SUBJECT"))
        return later(second)

    assert deliver_due(node.database, node.destination, node.settings, now=now) == 1
    assert arrived(scp, study) == 1
    assert node.states(job) == {"rejected"}
    listed = recall.list_sent(node.database, recall.Selection(job_id=job))
    assert len(listed.sent) == 1  # what was on its way when it was stopped is known to be there
    assert len(listed.stopped) == 1


def test_targets_are_told_as_people_write_them() -> None:
    assert release.parse_target("12") == Target("job", 12)
    assert release.parse_target("report-3") == Target("report", 3)
    for text in ("", "0", "-1", "report-", "visit-3", "1.5", "99999999999"):
        with pytest.raises(ValueError, match="neither"):
            release.parse_target(text)


def test_giving_up_and_sending_again_is_no_way_around_a_signature(tmp_path: Path, scp: Storescp, study: str) -> None:
    node = Node(tmp_path, scp, "hold")
    job = node.finish(study=study)
    for one in list_deliveries(node.database):
        give_up(node.database, one.id, "not wanted", "anna", NOW)
    assert node.states(job) == {"given_up"}
    for one in list_deliveries(node.database):
        assert send_again(node.database, one.id, later(60))
    assert node.states(job) == {"held"}
    assert node.deliver() == 0
    assert release.approve(node.database, Target("job", job), signing()) == 2
    assert node.deliver() == 2


def test_what_was_given_up_learns_that_its_visit_is_in_doubt(tmp_path: Path, scp: Storescp, study: str) -> None:
    node = Node(tmp_path, scp, "automatic")
    job = node.finish(study=study, trial=PLAN)
    node.take_for_visit(job)
    for one in list_deliveries(node.database):
        give_up(node.database, one.id, "not wanted", "anna", NOW)
    with node.database.write() as connection:
        holds.unsettle(connection, job, "it may be another person's exam")
    assert node.states(job) == {"given_up"}
    for one in list_deliveries(node.database):
        send_again(node.database, one.id, later(60))
    assert node.states(job) == {"held"}
    assert node.deliver() == 0


def test_what_arrived_while_it_was_given_up_is_in_the_list_of_a_recall(
    tmp_path: Path, scp: Storescp, study: str
) -> None:
    node = Node(tmp_path, scp, "automatic")
    job = node.finish(study=study)
    times = iter(range(100, 200))

    def now() -> Any:  # after the first object has been answered, and before that is written down
        second = next(times)
        if arrived(scp, study) == 1 and node.states(job) == {"waiting"}:
            for one in list_deliveries(node.database):
                give_up(node.database, one.id, "not wanted", "anna", NOW)
        return later(second)

    assert deliver_due(node.database, node.destination, node.settings, now=now) == 1
    assert node.states(job) == {"given_up"}
    assert len(recall.list_sent(node.database, recall.Selection(job_id=job)).sent) == 1


def test_nothing_goes_where_the_plan_does_not_send_it(tmp_path: Path, scp: Storescp, study: str) -> None:
    """The plan was edited while it waited, or a mapping told only later that the exam is the trial's."""
    node = Node(tmp_path, scp, "automatic")
    job = node.finish(study=study)
    nowhere = PLAN.model_copy(update={"destinations": ()})
    node.take_for_visit(job, plan=nowhere)
    assert node.states(job) == {"held"}
    assert set(list_deliveries(node.database)[0].holds or {}) == {"elsewhere"}
    assert release.approve(node.database, Target("job", job), signing()) == 0
    assert node.deliver() == 0
    node.take_for_visit(job)  # the plan names it again
    assert node.deliver() == 2


def test_an_approval_does_not_go_over_to_another_subject(tmp_path: Path, scp: Storescp, study: str) -> None:
    node = Node(tmp_path, scp, "hold")
    job = node.finish(study=study, trial=PLAN)
    node.take_for_visit(job)
    release.approve(node.database, Target("job", job), signing())
    assert node.states(job) == {"waiting"}
    add_visit(node.database, study)
    with node.database.write() as connection:
        holds.leave_subject(connection, connection.execute(select(trials.visit.c.exam_id)).scalar_one())
    node.take_for_visit(job)
    assert node.states(job) == {"held"}
    assert "as another subject's" in list_deliveries(node.database)[0].held_for
    assert node.deliver() == 0
    assert release.approve(node.database, Target("job", job), signing()) == 2


def test_a_recall_before_anything_is_put_down_holds_what_is_put_down_later(
    tmp_path: Path, scp: Storescp, study: str
) -> None:
    node = Node(tmp_path, scp, "automatic")
    job = node.finish(study=study)
    with node.database.write() as connection:
        put_aside = connection.execute(select(db.delivery)).all()
        connection.execute(db.delivery.delete())
    recall.recall(node.database, recall.Selection(job_id=job), signing())
    parcels = [Parcel(one.sop_uid, one.kind, one.path, one.destination) for one in put_aside]
    with node.database.write() as connection:  # as copies are, which take a while to make
        put_in_outbox(connection, job, parcels, NOW)
        holds.take_place(connection, job, NOW)
    assert node.states(job) == {"held"}
    assert node.deliver() == 0
