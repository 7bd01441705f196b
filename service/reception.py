"""The receiver process: the storage SCP and its record, and nothing heavy beside it."""

import logging
import signal
import sys
import threading

from dicom_io.inbox import Inbox
from dicom_io.receiver import open_receiver
from service.arrivals import open_ledger
from service.children import EXIT_CANNOT_START, receive_message
from service.commitments import open_commitment_desk
from service.database import open_database
from service.logs import log_to_stderr
from service.refused_calls import RefusedCalls

_log = logging.getLogger(__name__)


def main() -> None:
    """The process: told the settings on stdin; logs "ready" when it listens; ends at SIGTERM."""
    message = receive_message()
    settings = message.settings
    log_to_stderr(message.name, settings.logs)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    database = open_database(settings)
    inbox = Inbox(database.inbox_dir)
    refused = RefusedCalls(database)
    n_leftovers = inbox.sweep_incoming()
    try:
        desk = open_commitment_desk(database, settings)
        receiver = open_receiver(settings, inbox, open_ledger(database), desk, on_refused=refused.add)
    except OSError as error:
        _log.error("cannot listen", extra={"bind": settings.bind, "port": settings.port, "error": error.strerror})
        sys.exit(EXIT_CANNOT_START)
    _log.info(
        "ready",
        extra={
            "ae_title": settings.ae_title,
            "bind": settings.bind,
            "port": receiver.port,
            "unfinished_removed": n_leftovers,
        },
    )
    stop.wait()
    receiver.close()
    refused.close()
    database.close()


if __name__ == "__main__":
    main()
