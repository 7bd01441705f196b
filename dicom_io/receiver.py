"""The storage SCP: C-ECHO, C-STORE answered with Success only once the object is durable and recorded, commitment."""

import logging
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pynetdicom import _config

from config.reception import Reception
from config.settings import Settings
from dicom_io.access import DenialLog, admission_by
from dicom_io.commitment import CommitmentDesk, commitment_context
from dicom_io.commitment_scu import TakeResult, report_context
from dicom_io.inbox import Inbox
from dicom_io.places import Limits, Places
from dicom_io.presentation import accepted_contexts
from dicom_io.received import BrokenObject as BrokenObject
from dicom_io.received import Ledger as Ledger
from dicom_io.received import ReceivedInstance as ReceivedInstance
from dicom_io.received import Recorded as Recorded
from dicom_io.tls import open_server_context
from dicom_io.upper_layer import Association, Deadlines, House

_log = logging.getLogger(__name__)

_BACKLOG = 256
_LOOK_S = 0.5
_MEGABYTE = 1_000_000

# The library decodes and logs every message by default; our own line per object says what is needed, without identity.
_config.LOG_HANDLER_LEVEL = "none"


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket; with ``tls``, what comes there must begin with a handshake."""

    socket: socket.socket
    tls: Callable[[], ssl.SSLContext] | None = None

    @property
    def port(self) -> int:
        """Its TCP port."""
        return int(self.socket.getsockname()[1])


class Receiver:
    """An open storage SCP. Use :func:`open_receiver`, or in a process of its own a few listeners that others share."""

    def __init__(
        self,
        listeners: Sequence[Listener],
        house: House,
        places: Places,
        *,
        may_accept: Callable[[], bool] = lambda: True,
    ) -> None:
        self._listeners = {one.socket.fileno(): one for one in listeners}
        self._first = listeners[0]
        self._house = house
        self._places = places
        self._may_accept = may_accept
        self._is_closing = threading.Event()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # ends the wait for connections
        self._associations: dict[Association, threading.Thread] = {}
        self._changing = threading.Lock()
        self._thread = threading.Thread(target=self._accept_all, name="accept", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        return self._first.port

    @property
    def served(self) -> int:
        """Connections that are open."""
        return len(self._associations)

    @property
    def associations(self) -> int:
        """Associations that are open, in all processes."""
        return self._places.associations

    def close(self, drain_s: float = 10.0) -> None:
        """Stop accepting, let the objects that are under way come in for ``drain_s`` seconds, abort the rest."""
        self._is_closing.set()
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._wake)
        for one in self._listeners.values():
            one.socket.close()
        with self._changing:
            running = dict(self._associations)
        for association in running:
            association.stop()
        until_s = time.monotonic() + drain_s
        for thread in running.values():
            thread.join(max(0.0, until_s - time.monotonic()))
        for association in running:
            association.kill()
        for thread in running.values():
            thread.join(2.0)
        self._house.tell_refusals()

    def _accept_all(self) -> None:
        poll = select.poll()
        for number in self._listeners:
            poll.register(number, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while not self._is_closing.is_set():
            if not self._may_accept():
                self._is_closing.wait(_LOOK_S)
                continue
            for number, _ in poll.poll(_LOOK_S * 1000):
                if number != self._wake:
                    self._accept(self._listeners[number])

    def _accept(self, listener: Listener) -> None:
        try:
            connection, address = listener.socket.accept()
        except BlockingIOError:
            return  # another process was quicker
        except OSError as error:  # no more file descriptors, say
            _log.error("cannot accept a connection", extra={"error": error.strerror})
            self._is_closing.wait(_LOOK_S)
            return
        host = str(address[0])
        place = self._places.enter(host)
        if place is None:
            _log.warning("connection refused: too many wait", extra={"address": host})
            connection.close()
            return
        association = Association(connection, host, place, self._house)
        thread = threading.Thread(target=self._serve, args=(association, listener.tls), name="association", daemon=True)
        with self._changing:
            self._associations[association] = thread
        try:
            thread.start()
        except RuntimeError:  # no more threads
            _log.error("cannot serve a connection", extra={"address": host})
            with self._changing:
                del self._associations[association]
            place.leave()
            connection.close()

    def _serve(self, association: Association, tls: Callable[[], ssl.SSLContext] | None) -> None:
        try:
            association.run(tls)
        finally:
            with self._changing:
                del self._associations[association]


class _Room:
    """The free space of the storage folder, looked at once a second."""

    def __init__(self, folder: Path, reception: Reception) -> None:
        self._folder = folder
        self._reception = reception
        self._free_mb = self._size_mb = 0.0
        self._looked_at_s = -1.0

    def is_full(self) -> bool:
        """Objects are to be refused."""
        self._look()
        return self._free_mb < self._reception.full_below_mb(self._size_mb)

    def is_closed(self) -> bool:
        """Associations are to be refused."""
        self._look()
        return self._reception.closed_mb is not None and self._free_mb < self._reception.closed_mb

    def _look(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_at_s > 1.0 or self._looked_at_s < 0:
            self._looked_at_s = now_s
            try:
                found = os.statvfs(self._folder)
            except OSError as error:
                _log.error("the disk cannot be asked for its room", extra={"error": error.strerror})
                self._free_mb = -1.0  # less than any limit
                return
            self._free_mb = found.f_bavail * found.f_frsize / _MEGABYTE
            self._size_mb = found.f_blocks * found.f_frsize / _MEGABYTE


def listen(bind: str, port: int, tls: Callable[[], ssl.SSLContext] | None = None) -> Listener:
    """A listening socket.

    Raises:
        OSError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((bind, port))
        opened.listen(_BACKLOG)
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return Listener(opened, tls)


def open_house(
    settings: Settings,
    inbox: Inbox,
    ledger: Ledger,
    commitments: CommitmentDesk | None = None,
    results: TakeResult | None = None,
    *,
    deadlines: Deadlines | None = None,
    is_congested: Callable[[], bool] = lambda: False,
    on_refused: Callable[[str, str, str], None] = lambda calling_ae, address, why: None,
) -> House:
    """What the associations of a process share.

    Args:
        settings: of the node.
        inbox: where objects go.
        ledger: where they are written down.
        commitments: what becomes of storage commitment requests; None: they are not offered.
        results: what becomes of the results of our own requests; None: they are not taken.
        deadlines: other waits than the usual ones.
        is_congested: too much waits to be recorded.
        on_refused: told of each call that is refused: calling AE title, address, why.

    Raises:
        SettingsError: a peer's SOP class is unknown.
    """
    denials = DenialLog(on_refused)
    contexts = accepted_contexts()
    if commitments is not None:
        contexts = (*contexts, commitment_context() if results is None else report_context())
    reception = settings.reception
    room = _Room(inbox.folder, reception)
    return House(
        contexts=contexts,
        admit=admission_by(settings),
        note_refusal=denials.note,
        tell_refusals=denials.flush,
        inbox=inbox,
        ledger=ledger,
        commitments=commitments,
        results=results,
        is_full=room.is_full,
        is_closed=lambda: room.is_closed() or is_congested(),
        largest_object_bytes=reception.largest_object_mb * _MEGABYTE,
        deadlines=Deadlines(idle_s=reception.idle_s) if deadlines is None else deadlines,
    )


def limits_of(settings: Settings) -> Limits:
    """How many may be connected."""
    reception = settings.reception
    return Limits(reception.waiting_connections, settings.max_associations, reception.associations_per_host)


def listen_by(settings: Settings) -> tuple[Listener, ...]:
    """The ports of a node: the one without TLS, and the one with it, if there is one.

    Raises:
        OSError: an address cannot be bound.
        SettingsError: the files of ``tls`` cannot be used.
    """
    context = None if settings.tls is None else open_server_context(settings.tls)
    plain = listen(settings.bind, settings.port)
    if settings.tls is None or context is None:
        return (plain,)
    try:
        return plain, listen(settings.bind, settings.tls.port, context.current)
    except OSError:
        plain.socket.close()
        raise


def open_receiver(
    settings: Settings,
    inbox: Inbox,
    ledger: Ledger,
    commitments: CommitmentDesk | None = None,
    results: TakeResult | None = None,
    *,
    deadlines: Deadlines | None = None,
    on_refused: Callable[[str, str, str], None] = lambda calling_ae, address, why: None,
) -> Receiver:
    """Listen on the settings' addresses; associations are served in threads until :meth:`Receiver.close`.

    Calls that :func:`dicom_io.access.admit` does not let in, and beyond ``max_associations``, are rejected;
    ``on_refused`` is told who called, from where, and why it was refused.

    Raises:
        OSError: an address cannot be bound.
        SettingsError: the files of ``tls`` cannot be used, or a peer's SOP class is unknown.
    """
    house = open_house(settings, inbox, ledger, commitments, results, deadlines=deadlines, on_refused=on_refused)
    return Receiver(listen_by(settings), house, Places(limits_of(settings)))
