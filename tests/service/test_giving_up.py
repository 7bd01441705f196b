"""What waits for a destination that is no longer there can be given up by a person, with a reason; nothing else can."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from archive_of_ones_choice import Archive
from audit_rules import check
from outbox_desk import NOW, Outbox, later, scp_destination

from config.settings import Settings
from service import audit_chain
from service.audit_trail import AuditTrail
from service.cli import main
from service.deliveries import send_again, send_now
from service.delivery import warn_of_strays
from service.giving_up import CannotGiveUp, give_up, give_up_destination
from service.health import Health
from service.metrics import Metrics, Running

pytestmark = pytest.mark.filterwarnings("ignore:.*socket.socket.*:pytest.PytestUnraisableExceptionWarning")

UIDS = ["1.2.3.0", "1.2.3.1", "1.2.3.2"]


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """Three objects wait for ``near`` and for ``gone``."""
    one = Outbox(tmp_path, scp_destination("near", Archive()), scp_destination("gone", Archive()))
    yield one
    one.database.close()


def without_gone(outbox: Outbox) -> Settings:
    return outbox.settings.model_copy(update={"destinations": outbox.settings.destinations[:1]})


def test_only_what_goes_to_a_removed_destination_is_given_up_at_once(outbox: Outbox) -> None:
    known = {one.name for one in outbox.settings.destinations}
    with pytest.raises(CannotGiveUp, match="is in the settings"):
        give_up_destination(outbox.database, "gone", known, "the PACS was switched off", "anna", NOW)
    with pytest.raises(CannotGiveUp, match="a reason is needed"):
        give_up_destination(outbox.database, "gone", {"near"}, "  ", "anna", NOW)
    assert outbox.states("gone") == ["waiting"] * 3
    assert give_up_destination(outbox.database, "gone", {"near"}, "switched off", "anna", NOW) == 3
    assert outbox.states("gone") == ["given_up"] * 3
    assert {one.given_up_reason for one in outbox.rows("gone")} == {"switched off"}
    assert outbox.states("near") == ["waiting"] * 3
    assert give_up_destination(outbox.database, "gone", {"near"}, "once more", "anna", NOW) == 0
    assert {one.given_up_reason for one in outbox.rows("gone")} == {"switched off"}
    assert warn_of_strays(outbox.database, without_gone(outbox)) == {}


def test_one_that_is_confirmed_cannot_be_given_up_and_one_that_waits_can(tmp_path: Path) -> None:
    with Archive() as archive:
        outbox = Outbox(tmp_path, scp_destination("near", archive))
        assert outbox.deliver("near") == 3
        outbox.confirm("near", 400.0)
        assert outbox.states("near") == ["confirmed"] * 3
        with pytest.raises(CannotGiveUp, match="delivery 1 is confirmed"):
            give_up(outbox.database, 1, "not wanted", "anna", NOW)
        with pytest.raises(CannotGiveUp, match="no delivery with number 99"):
            give_up(outbox.database, 99, "not wanted", "anna", NOW)
        outbox.retry("near", UIDS[1])
        give_up(outbox.database, 2, "not wanted", "anna", NOW)
        assert outbox.states("near") == ["confirmed", "given_up", "confirmed"]
        assert outbox.deliver("near", 1e6) == 0
        outbox.confirm("near", 1e6)
        assert outbox.states("near") == ["confirmed", "given_up", "confirmed"]
        outbox.retry("near", UIDS[1])  # a person has thought better of it
        assert [one.given_up_reason for one in outbox.rows("near")] == [None] * 3
        assert outbox.deliver("near", 1e6) == 1
        outbox.database.close()


def test_what_was_given_up_is_never_sent_though_its_destination_comes_back(tmp_path: Path) -> None:
    with Archive() as archive:
        outbox = Outbox(tmp_path, scp_destination("back", archive))
        give_up_destination(outbox.database, "back", (), "renamed", "anna", NOW)
        assert send_now(outbox.database, "back", NOW) == 0
        assert outbox.deliver("back", 1e6) == 0
        outbox.confirm("back", 1e6)
        assert outbox.states("back") == ["given_up"] * 3
        outbox.database.close()


def test_it_is_counted_by_itself(outbox: Outbox) -> None:
    give_up_destination(outbox.database, "gone", {"near"}, "switched off", "anna", NOW)
    running = Running({}, {}, {})
    text = Metrics(outbox.database, outbox.settings, lambda: Health(()), lambda: running).text().decode()
    assert 'discnode_outbox{destination="gone",state="given_up"} 3.0' in text
    assert 'discnode_outbox{destination="gone",state="confirmed"} 0.0' in text
    assert 'discnode_outbox_oldest_seconds{destination="gone"} 0.0' in text


def test_what_people_decide_about_deliveries_is_in_the_trail_without_their_words(outbox: Outbox) -> None:
    send_now(outbox.database, "near", NOW, by="anna")
    send_again(outbox.database, outbox.rows("near")[0].id, NOW, by="bert")
    give_up_destination(outbox.database, "gone", {"near"}, "of Doe^Jane", "carl", NOW)
    trail = AuditTrail(outbox.database, outbox.settings)
    trail.write_due(later(9), is_last=True)
    lines = [line for line in audit_chain.read_lines(trail.folder) if line.kind in ("sent_again", "given_up")]
    assert [line.kind for line in lines] == ["sent_again", "sent_again", "given_up"]
    for line, who, what in zip(
        lines,
        ("anna", "bert", "carl"),
        ("3 objects at once to near", "1 object again to near", "3 objects given up for gone"),
        strict=True,
    ):
        root = check(line.message)
        assert root.find("ActiveParticipant").get("UserID") == who
        assert root.find("ParticipantObjectIdentification").get("ParticipantObjectID") == "1.2.3"
        assert root.findtext(".//EventOutcomeDescription") == what
        assert "Doe" not in line.message


def test_the_command(outbox: Outbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "node.yaml"
    destinations = [one.model_dump(mode="json", exclude_none=True) for one in outbox.settings.destinations[:1]]
    config.write_text(yaml.safe_dump({"storage_dir": str(outbox.settings.storage_dir), "destinations": destinations}))

    def give(*words: str) -> int:
        return main(["deliveries", "give-up", *words, "--config", str(config)])

    assert give("--reason", "x") == 2
    assert give("1", "--destination", "gone", "--reason", "x") == 2
    assert give("--destination", "near", "--reason", "x") == 2
    assert "near is in the settings" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        give("--destination", "gone")
    assert "--reason" in capsys.readouterr().err
    assert give("--destination", "gone", "--reason", "switched off in May", "--by", "Dr. A") == 0
    assert "3 objects for gone are given up" in capsys.readouterr().out
    (number, *_) = [one.id for one in outbox.rows("near")]
    assert give(str(number), "4711", "--reason", "a test exam") == 2
    assert "no delivery with number 4711" in capsys.readouterr().err
    assert outbox.states("near") == ["given_up", "waiting", "waiting"]
    assert main(["deliveries", "list", "--state", "given_up", "--config", str(config)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("switched off in May") == 3
    assert shown.count("a test exam") == 1
