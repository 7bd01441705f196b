"""Sends the audit trail to a repository by syslog over TLS (RFC 5424, RFC 5425; PS3.15 A.6).

The trail is its own spool: how far the repository has taken it is noted, and it is read on from there. Syslog has no
answer, so a lot counts as taken only when the connection has been closed in order by both sides; a lot of which
that is not known is sent again. So nothing is lost, and after a fault a message may come twice.
"""

import json
import logging
import os
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from config.audit import Syslog
from service.audit_chain import Line, read_head, read_lines
from service.tls_stream import TLSStream

_log = logging.getLogger(__name__)

FIRST_WAIT_S, LONGEST_WAIT_S = 5.0, 300.0
LATE_S = 300.0  # messages that wait longer are told
_LOT = 200
_PRIORITY = 10 * 8 + 5  # facility security/authorization, severity notice
_BOM = b"\xef\xbb\xbf"


class AuditRepository:
    """The way to one repository. Call :meth:`send_due` from one thread."""

    def __init__(self, settings: Syslog, folder: Path, host: str) -> None:
        self._settings, self._folder, self._host = settings, folder, host or "-"
        self._note = folder / "sent.json"
        self._failures = 0
        self._not_before = datetime.min.replace(tzinfo=UTC)
        self._wrong = ""
        self._waiting_since: datetime | None = None

    def send_due(self, now: datetime) -> int:
        """Send what has not been taken; returns how many messages were. A failure is kept for :meth:`wrong`."""
        if now < self._not_before:
            return 0
        n_sent, sent = 0, self._sent()
        if read_head(self._folder).number <= sent:
            return 0
        while lot := list(islice(read_lines(self._folder, sent), _LOT)):
            self._waiting_since = lot[0].at
            try:
                self._send(lot)
            except OSError as error:
                self._failed(error, now)
                return n_sent
            sent = lot[-1].number
            self._set_sent(sent)
            n_sent += len(lot)
            self._failures, self._wrong = 0, ""
        self._waiting_since = None
        return n_sent

    def wrong(self) -> str:
        """What is wrong, once messages have waited for a while."""
        since = self._waiting_since
        if not self._wrong or since is None:
            return ""
        waited_s = (datetime.now(UTC) - since).total_seconds()
        return f"audit messages have waited {waited_s / 60:.0f} min: {self._wrong}" if waited_s > LATE_S else ""

    def _send(self, lot: list[Line]) -> None:
        """Returns if the other side has read all of it.

        Raises:
            OSError: it cannot be reached, its certificate is wrong, or it is not known to have read all.
        """
        settings = self._settings
        with socket.create_connection((settings.host, settings.port), timeout=settings.timeout_s) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = TLSStream(plain, client_context(settings), settings.host)
            for frame in self._frames(lot):
                connection.write(frame)
            connection.close_in_order()

    def _frames(self, lot: list[Line]) -> Iterator[bytes]:
        for line in lot:
            when = line.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            header = f"<{_PRIORITY}>1 {when} {self._host} discnode {os.getpid()} DICOM+RFC3881 - "
            message = header.encode("ascii", "replace") + _BOM + line.message.encode()
            yield str(len(message)).encode() + b" " + message

    def _failed(self, error: OSError, now: datetime) -> None:
        self._failures += 1
        wait_s = min(FIRST_WAIT_S * 2.0 ** min(self._failures - 1, 20), LONGEST_WAIT_S)
        self._not_before = now + timedelta(seconds=wait_s)
        self._wrong = str(error) if isinstance(error, ssl.SSLCertVerificationError) else error.strerror or str(error)
        if self._failures == 1:
            _log.warning("audit repository does not take messages", extra={"error": self._wrong})

    def _sent(self) -> int:
        try:
            return int(json.loads(self._note.read_bytes())["n"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return 0  # from the start: better twice than never

    def _set_sent(self, number: int) -> None:
        temporary = self._note.with_name(".sent.json.new")
        try:
            temporary.write_text(json.dumps({"n": number}))
            os.replace(temporary, self._note)
        except OSError as error:
            _log.warning("how far the audit repository is cannot be noted", extra={"error": error.strerror})


def client_context(settings: Syslog) -> ssl.SSLContext:
    """TLS 1.2 or later, the server's certificate and name checked, files read anew each time."""
    context = ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.certificate_file is not None:
        context.load_cert_chain(settings.certificate_file, settings.key_file)
    return context
