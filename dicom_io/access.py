"""Who may open an association, and what it may send: what nobody has allowed is refused."""

import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache, partial

from pydicom.uid import UID

from config.settings import Peer, Settings, SettingsError
from config.tls import ClientTLS, Verify
from config.web import is_loopback
from dicom_io.presentation import VERIFICATION, accepted_contexts
from dicom_io.tls import PeerCertificate

_log = logging.getLogger(__name__)

#: A host name is looked up again after this time: addresses move, and a name server may be slow.
_LOOKUP_S = 60
#: One line in this time for each caller that is refused, and no more callers than this are told apart in it.
DENIALS_S = 60.0
_MOST_DENIED = 100


class Refused(Exception):
    """An association that is rejected: result, source and reason of PS3.8 9.3.4, and why in words."""

    def __init__(self, result: int, source: int, reason: int, why: str) -> None:
        super().__init__(why)
        self.result, self.source, self.reason, self.why = result, source, reason, why


#: Rejected-permanent by the service user: which of the two AE titles it is about (PS3.8 table 9-21).
_CALLING_AE, _CALLED_AE = (1, 1, 3), (1, 1, 7)


@dataclass(frozen=True, slots=True)
class Call:
    """An association request: what it says, where it comes from, and how."""

    calling_ae: str
    called_ae: str
    address: str
    certificate: PeerCertificate | None = None
    by_tls: bool = False


@dataclass(frozen=True, slots=True)
class Admission:
    """Who a caller is, and what it may do. ``sop_classes``: storage SOP classes that it may send; None: all."""

    name: str
    sop_classes: frozenset[str] | None = None
    is_own: bool = False  # the node asks its own receiver whether it lives: C-ECHO, and nothing else

    def permits(self, abstract_syntax: str) -> bool:
        """Whether it may use a presentation context."""
        if abstract_syntax == VERIFICATION:
            return True
        if self.is_own:
            return False
        return (
            self.sop_classes is None or abstract_syntax not in _storage_classes() or abstract_syntax in self.sop_classes
        )


@dataclass(frozen=True, slots=True)
class Callers:
    """Who is served. Make it with :func:`callers_of`.

    ``reporters``: destinations, which may call with the results of storage commitment, and send nothing.
    ``own_address``: where this machine calls from beside the loopback interface; empty if not known.
    ``serves_this_machine``: any calling AE title is served from this machine.
    ``needs_certificate``: who calls by TLS must show one that its entry names.
    """

    ae_title: str
    peers: tuple[Peer, ...]
    reporters: tuple[Peer, ...] = ()
    own_address: str = ""
    serves_this_machine: bool = False
    needs_certificate: bool = False


def callers_of(settings: Settings) -> Callers:
    """The peers of the settings; without any, whoever calls from this machine. Sources may send what was asked of them.

    A destination may call with commitment results. Of an AE title that is a peer's, the peers alone tell what it may.

    Raises:
        SettingsError: a peer's SOP class is not one that the node takes.
    """
    for peer in settings.peers:
        for name in peer.sop_classes:
            _class_uid(peer.ae_title, name)
    listed = {peer.ae_title for peer in settings.peers}
    sources = tuple(
        _called(one.ae_title, one.host, one.tls, settings) for one in settings.sources if one.ae_title not in listed
    )
    reporters = tuple(
        _called(one.reports_as or one.ae_title, one.host, one.tls, settings)
        for one in settings.destinations
        if one.ae_title is not None
        and one.host is not None
        and (one.reports_as or one.ae_title) not in listed | {source.ae_title for source in sources}
    )
    return Callers(
        settings.ae_title,
        (*settings.peers, *sources),
        reporters,
        own_address="" if settings.bind in ("0.0.0.0", "::") else settings.bind,
        serves_this_machine=not settings.peers,
        needs_certificate=settings.tls is not None and settings.tls.asks_for_certificate,
    )


def _called(ae_title: str, host: str, tls: ClientTLS | None, settings: Settings) -> Peer:
    """Whom we call, as a caller: by TLS it shows the certificate that we check when we call it."""
    if tls is None or settings.tls is None:
        return Peer(ae_title=ae_title, host=host)
    certificate = (tls.server_name or host,) if tls.verify is Verify.NAME else ()
    return Peer(ae_title=ae_title, host=host, tls=True, certificate=certificate)


def admission_by(settings: Settings) -> Callable[[Call], Admission]:
    """:func:`admit` by the rules of a node; errors as of :func:`callers_of`."""
    return partial(admit, callers_of(settings))


def admit(callers: Callers, call: Call) -> Admission:
    """Let a call in.

    Raises:
        Refused: another AE title was called, or the calling AE title, its address or its certificate is not a peer's.
    """
    if call.called_ae != callers.ae_title:
        raise Refused(*_CALLED_AE, "it calls another AE title")
    address = _plain_address(call.address)
    is_here = is_loopback(address) or address == callers.own_address
    of_title = [peer for peer in callers.peers if peer.ae_title == call.calling_ae]
    if not of_title and is_here and (callers.serves_this_machine or call.calling_ae == callers.ae_title):
        return Admission(call.calling_ae, is_own=not callers.serves_this_machine)
    of_title += [peer for peer in callers.reporters if peer.ae_title == call.calling_ae]
    if not of_title:
        raise Refused(*_CALLING_AE, "its AE title is not a peer's")
    at_address = [peer for peer in of_title if peer.host is None or _is_at(address, peer.host)]
    if not at_address:
        raise Refused(*_CALLING_AE, "it calls from another address than the peer's")
    for peer in at_address:
        if _certificate_is_right(peer, call, needs_certificate=callers.needs_certificate):
            classes = frozenset(_class_uid(peer.ae_title, name) for name in peer.sop_classes)
            return Admission(peer.ae_title, classes if classes or peer in callers.reporters else None)
    raise Refused(
        *_CALLING_AE,
        "its certificate is not bound to its AE title" if call.by_tls else "it must call by TLS",
    )


def _certificate_is_right(peer: Peer, call: Call, *, needs_certificate: bool) -> bool:
    if not call.by_tls:
        return not peer.needs_tls
    if peer.certificate:
        return call.certificate is not None and call.certificate.is_one_of(peer.certificate)
    return not needs_certificate


def _plain_address(address: str) -> str:
    """An address as it is configured: IPv4 that came in by an IPv6 socket as IPv4, without the zone of a link."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def _is_at(address: str, host: str) -> bool:
    """Whether an address is a host's: the same, in its network, or one that its name stands for now."""
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(host)
    except ValueError:
        return address in _looked_up(host, int(time.monotonic() // _LOOKUP_S))


@lru_cache(maxsize=256)
def _looked_up(host: str, _minute: int) -> frozenset[str]:
    try:
        return frozenset(_plain_address(str(info[4][0])) for info in socket.getaddrinfo(host, None))
    except OSError:
        return frozenset()  # refused: a name that stands for nothing is nobody's address


@cache
def _storage_classes() -> dict[str, str]:
    """UID -> keyword of what can be sent."""
    _, *storage = accepted_contexts()
    return {str(one.abstract_syntax): UID(str(one.abstract_syntax)).keyword for one in storage}


def _class_uid(ae_title: str, name: str) -> str:
    for uid, keyword in _storage_classes().items():
        if name in (uid, keyword):
            return uid
    raise SettingsError(f"peers: {ae_title}: sop_classes: {name} is no storage SOP class that the node takes")


class DenialLog:
    """One line in a minute for each caller that is refused, with how often it was; safe from several threads.

    Who invents AE titles gets no more lines: beyond a hundred callers in a minute they are counted together.

    Args:
        on_refused: told of each refusal: calling AE title (empty where none was heard), address, why.
        clock: seconds.
    """

    def __init__(
        self,
        on_refused: Callable[[str, str, str], None] = lambda calling_ae, address, why: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_refused = on_refused
        self._clock = clock
        self._lock = threading.Lock()
        self._denied: dict[tuple[str, str], _Denied] = {}

    def note(self, calling_ae: str, address: str, why: str) -> None:
        """Write a refusal down, or count it."""
        self._on_refused(calling_ae, address, why)
        with self._lock:
            now_s = self._clock()
            lines = self._over(now_s)
            key = (calling_ae, address)
            if key not in self._denied and len(self._denied) >= _MOST_DENIED:
                key = ("(others)", "(several)")
            known = self._denied.get(key)
            if known is None:
                self._denied[key] = _Denied(now_s, why)
                lines.append((key, why, 1))
            else:
                known.n_silent += 1
                known.why = why
        _write(lines)

    def flush(self) -> None:
        """Write down what has been counted, before the process ends."""
        with self._lock:
            lines = self._over(float("inf"))
        _write(lines)

    def _over(self, now_s: float) -> list[tuple[tuple[str, str], str, int]]:
        """Forget callers whose minute is over; what was counted of them is told."""
        over = {key: one for key, one in self._denied.items() if now_s - one.since_s >= DENIALS_S}
        for key in over:
            del self._denied[key]
        return [(key, one.why, one.n_silent) for key, one in over.items() if one.n_silent]


@dataclass(slots=True)
class _Denied:
    since_s: float
    why: str
    n_silent: int = 0


def _write(lines: Iterable[tuple[tuple[str, str], str, int]]) -> None:
    for (calling_ae, address), why, times in lines:
        _log.warning(
            "association rejected", extra={"calling_ae": calling_ae, "address": address, "why": why, "times": times}
        )
