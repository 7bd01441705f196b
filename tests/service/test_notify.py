"""Notifications: over a real HTTP and a real mail server, once a cause, until they are taken, without identity."""

import json
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope
from certificates import Authority
from notice_hook import Hook
from peers import free_port
from records import NOW, add_exam, add_job, later, open_database, settings_in
from sqlalchemy import insert, update

from config.notifications import Email, Event, Webhook
from config.settings import Settings
from processing.refusal import Reason, ReasonCode
from service import cli, quarantine
from service import database as db
from service.channels import Channel, NotDelivered, open_channels
from service.health import Check, Health
from service.incidents import Incidents
from service.notify import NotificationDesk, Occurrence


@pytest.fixture(autouse=True)
def secrets_are_the_owners() -> Iterator[None]:
    """Files with secrets that others may read are refused."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def hook() -> Iterator[Hook]:
    one = Hook()
    yield one
    one.close()


class Postbox:
    """A mail server that speaks STARTTLS and asks for a login."""

    def __init__(self, context: ssl.SSLContext, *, tls: bool = False) -> None:
        self.letters: list[Any] = []
        self.logins: list[tuple[bytes, bytes]] = []

        def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
            self.logins.append((data.login, data.password))
            return AuthResult(success=data.password == b"s3cret", handled=False)

        options: dict[str, Any] = {"authenticator": authenticate, "auth_required": True}
        if tls:
            options |= {"auth_require_tls": False, "auth_required": False}  # it does not see that the port is TLS
        else:
            options |= {"tls_context": context, "require_starttls": True}
        self.port = free_port()
        self._controller = Controller(
            self, hostname="127.0.0.1", port=self.port, ssl_context=context if tls else None, **options
        )
        self._controller.start()

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Envelope) -> str:  # noqa: N802
        assert envelope.content is not None
        content = envelope.content if isinstance(envelope.content, bytes) else envelope.content.encode()
        self.letters.append(message_from_bytes(content, policy=policy.default))
        return "250 OK"

    def close(self) -> None:
        self._controller.stop()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server_context(authority: Authority) -> ssl.SSLContext:
    issued = authority.issue("mail.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate_file, issued.key_file)
    return context


def letter_to(port: int, authority: Authority, folder: Path, **changes: Any) -> Email:
    password = folder / "password"
    password.write_text("s3cret\n")
    values: dict[str, Any] = {
        "name": "ward",
        "host": "127.0.0.1",
        "port": port,
        "sender": "discnode@example.org",
        "recipients": ("it@example.org", "md@example.org"),
        "user": "discnode",
        "password_file": password,
        "ca_file": authority.ca_file,
    }
    return Email.model_validate(values | changes)


def channels_of(folder: Path, **notifications: object) -> tuple[Channel, ...]:
    return open_channels(settings_in(folder, notifications=notifications).notifications)


MESSAGE = {"node": "DISCNODE", "link": "https://node.example/", "events": [{"event": "x", "at": "t", "text": "words"}]}


# --- ways out ---------------------------------------------------------------------------------------------------------


def test_a_webhook_gets_json_and_its_token(hook: Hook, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("Bearer abc\n")
    (channel,) = channels_of(tmp_path, webhooks=[Webhook(name="chat", url=hook.url, authorization_file=token)])
    channel.send(MESSAGE)
    assert hook.got == [("Bearer abc", MESSAGE)]


def test_an_address_that_is_a_secret_stands_in_a_file(
    hook: Hook, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "node.yaml"
    config.write_text(json.dumps({"notifications": {"webhooks": [{"name": "chat", "url_file": "address"}]}}))
    for text in ("", "ftp://x/", "nothing s3cret"):
        (tmp_path / "address").write_text(text)
        assert cli.main(["check-config", str(config)]) == 2
        assert cli.main(["notify", "test", "--config", str(config)]) == 1
    (tmp_path / "address").write_text(f"{hook.url}/s3cret?token=x\n")
    assert cli.main(["check-config", str(config)]) == 0
    assert cli.main(["notify", "test", "--config", str(config)]) == 0
    said = capsys.readouterr()
    assert "s3cret" not in said.out + said.err
    assert len(hook.got) == 1


@pytest.mark.parametrize("status", [302, 307, 404, 500, 503])
def test_a_webhook_that_refuses_or_sends_elsewhere_has_not_taken_it(hook: Hook, tmp_path: Path, status: int) -> None:
    hook.status = status
    (channel,) = channels_of(tmp_path, webhooks=[Webhook(name="chat", url=hook.url)])
    with pytest.raises(NotDelivered, match=str(status)):
        channel.send(MESSAGE)


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_letter_goes_by_tls_with_a_login(
    authority: Authority, server_context: ssl.SSLContext, tmp_path: Path, security: str
) -> None:
    postbox = Postbox(server_context, tls=security == "tls")
    try:
        mail = letter_to(postbox.port, authority, tmp_path, security=security)
        (channel,) = channels_of(tmp_path, emails=[mail])
        channel.send(MESSAGE)
    finally:
        postbox.close()
    (letter,) = postbox.letters
    assert (letter["From"], letter["To"]) == ("discnode@example.org", "it@example.org, md@example.org")
    assert letter["Subject"] == "[DISCNODE] words"
    assert letter["Auto-Submitted"] == "auto-generated"
    assert "https://node.example/" in letter.get_content()
    assert postbox.logins == [(b"discnode", b"s3cret")]


def test_a_mail_server_with_a_strange_certificate_gets_no_password(
    server_context: ssl.SSLContext, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "other")
    postbox = Postbox(server_context)
    try:
        (channel,) = channels_of(tmp_path, emails=[letter_to(postbox.port, stranger, tmp_path)])
        with pytest.raises(NotDelivered, match="certificate verify failed"):
            channel.send(MESSAGE)
    finally:
        postbox.close()
    assert (postbox.letters, postbox.logins) == ([], [])


def test_a_mail_server_without_starttls_gets_nothing(authority: Authority, tmp_path: Path) -> None:
    plain = Controller(object(), hostname="127.0.0.1", port=free_port())
    plain.start()
    try:
        (channel,) = channels_of(tmp_path, emails=[letter_to(plain.port, authority, tmp_path)])
        with pytest.raises(NotDelivered, match="SMTPNotSupported"):
            channel.send(MESSAGE)
    finally:
        plain.stop()


def test_a_wrong_password_is_told_without_the_password(
    authority: Authority, server_context: ssl.SSLContext, tmp_path: Path
) -> None:
    postbox = Postbox(server_context)
    try:
        mail = letter_to(postbox.port, authority, tmp_path)
        (tmp_path / "password").write_text("hunter2")
        (channel,) = channels_of(tmp_path, emails=[mail])
        with pytest.raises(NotDelivered, match="535") as refusal:
            channel.send(MESSAGE)
    finally:
        postbox.close()
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user": None}, "user goes together"),
        ({"password_file": None}, "user goes together"),
        ({"security": "none"}, "only sent with starttls or tls"),
        ({"recipients": ()}, "at least 1"),
    ],
)
def test_settings_that_would_show_a_password_are_refused(
    authority: Authority, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        letter_to(25, authority, tmp_path, **change)


def test_the_command_says_of_each_channel_whether_it_works(
    hook: Hook, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "node.yaml"
    hooks = [{"name": "good", "url": hook.url}, {"name": "bad", "url": f"http://127.0.0.1:{free_port()}/"}]
    config.write_text(json.dumps({"notifications": {"webhooks": hooks}}))
    assert cli.main(["notify", "test", "--config", str(config)]) == 1
    said = capsys.readouterr()
    assert said.out == "good: taken\n"
    assert said.err == "bad: Connection refused\n"
    assert hook.got[0][1]["events"][0]["event"] == "test"
    config.write_text("{}")
    assert cli.main(["notify", "test", "--config", str(config)]) == 2


def test_a_settings_check_names_the_password_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "node.yaml"
    hook = {"name": "chat", "url": "https://chat.example/", "authorization_file": "token"}
    config.write_text(json.dumps({"notifications": {"webhooks": [hook]}}))
    assert cli.main(["check-config", str(config)]) == 2
    assert f"notifications: chat: {tmp_path}/token: cannot be read" in capsys.readouterr().err
    (tmp_path / "token").write_text("Bearer s3cret")
    assert cli.main(["check-config", str(config)]) == 0
    said = capsys.readouterr().out
    assert "tells chat (https://chat.example/)" in said
    assert "s3cret" not in said


# --- rules ------------------------------------------------------------------------------------------------------------


class Way:
    """A channel of a test; ``fails`` says whether it takes anything."""

    def __init__(self, *events: Event) -> None:
        self.fails = False
        self.messages: list[Mapping[str, Any]] = []
        self.channel = Channel("way", events or tuple(Event), self._send)

    def _send(self, message: Mapping[str, Any]) -> None:
        if self.fails:
            raise NotDelivered("no")
        self.messages.append(message)

    @property
    def texts(self) -> list[list[str]]:
        return [[one["text"] for one in message["events"]] for message in self.messages]


def rules(folder: Path, **changes: object) -> Settings:
    return settings_in(folder, notifications={"interval_s": 600, "group_s": 30, **changes})


def test_what_happens_together_is_one_message_and_a_cause_is_told_once_in_an_interval(tmp_path: Path) -> None:
    settings, way = rules(tmp_path), Way()
    settings.storage_dir.mkdir(parents=True)
    desk = NotificationDesk(settings, (way.channel,))
    told = []
    for seconds in range(0, 60, 3):
        both = [Occurrence(Event.JOB_PARKED, "x", f"x{seconds}"), Occurrence(Event.DISK_LOW, "y", "y", keep=False)]
        told.append(desk.add(both, later(seconds)))
        desk.send_due(later(seconds))
    assert told == [{"x", "y"}, *([set()] * 19)]
    assert way.texts == [["x0", "y"]]
    desk = NotificationDesk(settings, (way.channel,))  # what came too early is not forgotten by a restart
    for seconds in range(60, 2000, 3):
        desk.send_due(later(seconds))
    assert way.texts[1:] == [["x57 (19 times since it was last told)"]]


def test_a_channel_gets_only_the_events_it_is_for(tmp_path: Path) -> None:
    settings, way = rules(tmp_path, group_s=0), Way(Event.JOB_PARKED)
    settings.storage_dir.mkdir(parents=True)
    desk = NotificationDesk(settings, (way.channel,))
    desk.add([Occurrence(Event.NOT_READY, "a", "a"), Occurrence(Event.JOB_PARKED, "b", "b")], NOW)
    desk.send_due(NOW)
    assert way.texts == [["b"]]


def test_what_was_not_taken_is_tried_ever_more_slowly_and_survives_a_restart(tmp_path: Path) -> None:
    settings, way = rules(tmp_path, group_s=0), Way()
    settings.storage_dir.mkdir(parents=True)
    way.fails = True
    tries: list[float] = []

    def send(message: Mapping[str, Any]) -> None:
        tries.append(1)
        way.channel.send(message)

    counting = Channel("way", way.channel.events, send)
    desk = NotificationDesk(settings, (counting,))
    desk.add([Occurrence(Event.NOT_READY, "a", "a")], NOW)
    for seconds in range(0, 3600, 5):
        if seconds == 1800:
            desk = NotificationDesk(settings, (counting,))  # the node was started again
        desk.send_due(later(seconds))
    assert 7 <= len(tries) <= 12
    way.fails = False
    desk.send_due(later(5000))
    assert way.texts == [["a"]]
    assert desk.waiting == 0


def test_a_full_disk_is_told_too(tmp_path: Path) -> None:
    """Nothing can be kept; it is told from memory."""
    settings, way = rules(tmp_path, group_s=0), Way()  # the storage folder is not even there
    desk = NotificationDesk(settings, (way.channel,))
    desk.add([Occurrence(Event.DISK_LOW, "disk", "full")], NOW)
    desk.send_due(NOW)
    assert way.texts == [["full"]]


# --- what is told -----------------------------------------------------------------------------------------------------


class Site:
    """A database, a desk and a health that says what the test wants."""

    def __init__(self, folder: Path) -> None:
        self.settings = rules(folder, group_s=0, destination_failing_s=60)
        self.database = open_database(self.settings)
        self.way = Way()
        self.desk = NotificationDesk(self.settings, (self.way.channel,))
        self.wrong = ""
        self.incidents = Incidents(self.database, self.settings, self._health, self.desk)

    def _health(self) -> Health:
        return Health((Check("disk", self.wrong, True, 0.0), Check("receiver", self.wrong, True, 0.0)))

    def look(self, seconds: float) -> list[str]:
        """What is told then."""
        before = len(self.way.messages)
        self.incidents.look(later(seconds))
        self.desk.send_due(later(seconds))
        return [text for texts in self.way.texts[before:] for text in texts]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path)
    yield one
    one.database.close()


def test_trouble_is_told_when_it_lasts_and_again_when_it_is_over(site: Site) -> None:
    assert site.look(0) == []
    site.wrong = "broken"
    assert site.look(1) == []
    site.wrong = ""
    assert site.look(3) == []
    site.wrong = "broken"
    assert site.look(10) == []
    assert site.look(16) == ["disk: broken", "receiver: broken"]
    assert [one["event"] for one in site.way.messages[-1]["events"]] == ["disk_low", "not_ready"]
    assert site.look(60) == []
    site.wrong = ""
    told = site.look(70)
    assert told == ["disk works again; the node is ready", "receiver works again; the node is ready"]
    assert site.look(80) == []


def test_what_goes_up_and_down_tells_little_and_in_the_end_the_truth(site: Site) -> None:
    told: list[str] = []
    for seconds in range(0, 500, 5):
        site.wrong = "broken" if seconds % 40 < 20 else ""
        told += site.look(seconds)
    assert len(told) == 4  # of two checks: broken, and well again
    site.wrong = "broken"
    told = [text for seconds in range(500, 900, 5) for text in site.look(seconds)]
    assert told == ["disk: broken", "receiver: broken"]
    site.wrong = ""
    told = [text for seconds in range(900, 1600, 5) for text in site.look(seconds)]
    assert told == ["disk works again; the node is ready", "receiver works again; the node is ready"]


def test_what_stays_broken_is_told_again_after_an_interval(site: Site) -> None:
    site.wrong = "broken"
    told = [text for seconds in range(0, 1250, 5) for text in site.look(seconds)]
    assert told == ["disk: broken", "receiver: broken"] * 3


def test_new_cases_and_parked_jobs_are_told_by_number_and_old_ones_are_not(site: Site) -> None:
    exam = add_exam(site.database, "1.2.3.4")
    job = add_job(site.database, exam)

    def hold(code: ReasonCode, detail: str) -> None:
        with site.database.write() as connection:
            quarantine.hold_exam(connection, exam, Reason(code, detail), NOW)

    def park(seconds: float) -> None:
        with site.database.write() as connection:
            connection.execute(
                update(db.job).where(db.job.c.id == job).values(state="failed", finished_at=later(seconds))
            )

    hold(ReasonCode.MOTION, "of Doe^Jane")
    park(0)
    assert site.look(0) == []  # what is there when notifications are set up is known
    hold(ReasonCode.MOTION, "of Doe^John")
    hold(ReasonCode.IDENTITY_CONFLICT, "Doe^John and Roe^Rita")
    assert site.look(10) == [
        "1 new cases IDENTITY_CONFLICT in quarantine, the newest is 3",
        "1 new cases MOTION in quarantine, the newest is 2",
    ]
    park(15)  # it was tried again
    assert site.look(20) == [f"1 analyses are parked after their last try, the newest is job {job}"]
    site.desk = NotificationDesk(site.settings, (site.way.channel,))  # the node is started again
    assert site.look(30) == []
    assert "Doe" not in json.dumps(site.way.messages)
    assert "1.2.3.4" not in json.dumps(site.way.messages)


def test_a_destination_that_takes_nothing_is_told(site: Site) -> None:
    job = add_job(site.database, add_exam(site.database))
    with site.database.write() as connection:
        connection.execute(update(db.job).values(state="done", finished_at=NOW))
        for name, attempts, state, sent_at in (
            ("down", 3, "waiting", None),
            ("slow", 1, "waiting", None),
            ("slow", 1, "sent", later(100)),
            ("fresh", 0, "waiting", None),
        ):
            connection.execute(
                insert(db.delivery).values(
                    job_id=job,
                    sop_uid=f"1.{name}.{state}",
                    kind="sr",
                    path="x",
                    destination=name,
                    state=state,
                    attempts=attempts,
                    not_before=NOW,
                    sent_at=sent_at,
                )
            )
    assert site.look(30) == []
    assert site.look(120) == ["destination down has taken nothing for 2 min; 1 objects wait"]


def test_rows_are_looked_at_when_the_database_is_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.exc import OperationalError

    site.look(0)
    exam = add_exam(site.database)
    with site.database.write() as connection:
        quarantine.hold_exam(connection, exam, Reason(ReasonCode.MOTION, "x"), NOW)

    def locked() -> Callable[[], None]:
        raise OperationalError("", {}, Exception())

    monkeypatch.setattr(site.database, "read", locked)
    assert site.look(10) == []
    monkeypatch.undo()
    assert site.look(20) == ["1 new cases MOTION in quarantine, the newest is 1"]
