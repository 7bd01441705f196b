"""The receiver process: the storage SCP and its record, and nothing heavy beside it."""

import logging
import signal
import sys
import threading

from dicom_io.inbox import Inbox
from dicom_io.receiver import open_receiver
from service.arrivals import open_ledger
from service.asked_commitments import open_results
from service.children import EXIT_CANNOT_START, receive_message
from service.commitments import open_commitment_desk
from service.database import open_database
from service.logs import log_to_stderr

_log = logging.getLogger(__name__)


def main() -> None:
    """The process: told the settings on stdin; logs "ready" when it listens; ends at SIGTERM."""
    message = receive_message()
    log_to_stderr(message.name)
    settings = message.settings
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    database = open_database(settings)
    inbox = Inbox(database.inbox_dir)
    n_leftovers = inbox.sweep_incoming()
    try:
        desk, results = open_commitment_desk(database, settings), open_results(database, settings)
        receiver = open_receiver(settings, inbox, open_ledger(database), desk, results)
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
    database.close()


if __name__ == "__main__":
    main()
