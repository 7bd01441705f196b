"""Who may call: the called and the calling AE title, and the address it calls from."""

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from config.settings import Peer, Settings

_log = logging.getLogger(__name__)

#: Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 9.3.4).
WRONG_CALLED, WRONG_CALLING = (1, 1, 7), (1, 1, 3)


@dataclass(frozen=True, slots=True)
class Call:
    """Somebody asks for an association."""

    calling_ae: str
    called_ae: str
    address: str
    certificate: object | None = None
    by_tls: bool = False


@dataclass(frozen=True, slots=True)
class Admission:
    """The call is taken. ``sop_classes``: all that it may store; None: whatever the node takes."""

    name: str
    sop_classes: frozenset[str] | None = None

    def permits(self, abstract_syntax: str) -> bool:
        """Whether it may use a presentation context."""
        return self.sop_classes is None or abstract_syntax in self.sop_classes


class Refused(Exception):
    """The call is not taken: result, source and reason of the A-ASSOCIATE-RJ."""

    def __init__(self, result: int, source: int, reason: int, why: str) -> None:
        super().__init__(why)
        self.result, self.source, self.reason, self.why = result, source, reason, why


def admission_by(settings: Settings) -> Callable[[Call], Admission]:
    """The rule of a node: its peers, sources and destinations may call; anyone, where it has no peers."""
    peers = settings.peers and (
        *settings.peers,
        *(Peer(ae_title=one.ae_title, host=one.host) for one in settings.sources),
        *(
            Peer(ae_title=one.reports_as or one.ae_title, host=one.host)
            for one in settings.destinations
            if one.ae_title is not None
        ),
    )
    return partial(_admit, settings.ae_title, peers)


def _admit(ae_title: str, peers: tuple[Peer, ...], call: Call) -> Admission:
    if call.called_ae != ae_title:
        raise Refused(*WRONG_CALLED, "another AE title was called")
    if peers:
        hosts = [peer.host for peer in peers if peer.ae_title == call.calling_ae]
        if not hosts:
            raise Refused(*WRONG_CALLING, "unknown AE title")
        if None not in hosts and not any(call.address in _addresses(host) for host in hosts if host is not None):
            raise Refused(*WRONG_CALLING, "wrong host")
    return Admission(call.calling_ae)


def _addresses(host: str) -> set[str]:
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return set()
