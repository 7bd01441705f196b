"""Word to systemd (a unit of Type=notify): the node is ready, or stopping. Without systemd nobody is told."""

import logging
import socket

from config.service_manager import notify_address

_log = logging.getLogger(__name__)

READY, STOPPING = "READY=1", "STOPPING=1"


def tell_service_manager(what: str) -> None:
    """Send one line as sd_notify(3) does; a manager that does not listen is no reason to fail."""
    address = notify_address()
    if address is None:
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto(what.encode(), target)
    except OSError as error:
        _log.warning("the service manager cannot be told", extra={"what": what, "error": error.strerror})
