"""A TLS connection of which is known, at its end, whether the other side has read everything.

``ssl.SSLSocket.unwrap`` does not tell: a fatal alert that comes while it waits looks to it like an orderly end. With
TLS 1.3 that matters, for a server says only after the client's first data that it does not like its certificate.
"""

import contextlib
import select
import socket
import ssl
from collections.abc import Callable

_FIRST_WORD_S = 0.5  # a server that dislikes our certificate says so within this time, or is heard later


class TLSStream:
    """A client's side, over a connected socket whose timeout bounds every wait.

    Raises:
        OSError: the handshake fails.
    """

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._socket = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._wait_for(self._tls.do_handshake)
        if select.select([plain], [], [], _FIRST_WORD_S)[0]:
            self._receive()
        self._listen()

    def write(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            OSError: it cannot be sent.
        """
        self._tls.write(data)
        self._flush()

    def close_in_order(self) -> None:
        """Say that there is no more, and wait until the other side ends too: then it has read everything.

        Raises:
            OSError: it breaks off, or says that something is wrong.
        """
        self._listen()
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._flush()
        try:
            while self._wait_for(lambda: self._tls.read(65_536)):
                pass  # whatever it says: syslog has no answers
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            pass  # its own end, or that of the connection: with data unread, that would have been a reset

    def _listen(self) -> None:
        """Take notice of what has come.

        Raises:
            OSError: it is an alert, or the end.
        """
        try:
            while self._tls.read(65_536):
                pass
        except ssl.SSLWantReadError:
            return
        raise ConnectionAbortedError("the other side has ended the connection")

    def _wait_for(self, step: Callable[[], bytes | None]) -> bytes | None:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._flush()
                self._receive()
            finally:
                self._flush()

    def _receive(self) -> None:
        data = self._socket.recv(65_536)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self._socket.sendall(data)
