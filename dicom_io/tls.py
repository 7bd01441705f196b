"""TLS by BCP 195 (RFC 8996, RFC 9325; PS3.15 B.12, B.13): contexts that follow their files, and who a caller is."""

import hashlib
import logging
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from config.secret_files import check_secret_file
from config.sections import SettingsError
from config.tls import TLS, ClientTLS, TLSProfile, Verify

_log = logging.getLogger(__name__)

#: TLS 1.2 suites; 1.3 has its own, all of which RFC 9325 allows. PS3.15 B.12 is RFC 9325 4.2: ECDHE with AES-GCM or
#: ChaCha20. B.13 fixes the list, in which DHE of 2,048 bits or more stands too. Security level 2 keeps keys of fewer
#: than 112 bits' strength out (RSA and DHE below 2,048 bits, curves below 224; those that OpenSSL offers begin at 253).
_SUITES = {
    TLSProfile.BCP195: (
        "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:"
        "ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:@SECLEVEL=2"
    ),
    TLSProfile.BCP195_MODIFIED: (
        "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:DHE-RSA-AES256-GCM-SHA384:"
        "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256:@SECLEVEL=2"
    ),
}
#: RFC 7919 A.1, as ``openssl genpkey -genparam -algorithm DH -pkeyopt group:ffdhe2048`` writes it.
DHE_PARAMETERS = Path(__file__).with_name("ffdhe2048.pem")


class TLSFault(SettingsError):
    """Certificate, key or authorities cannot be used; the message names the file, never what is in it."""


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The certificate that a caller has shown, checked: SHA-256 of it (hex), and the names in it, in small letters."""

    sha256: str
    names: frozenset[str]

    def is_one_of(self, certificates: tuple[str, ...]) -> bool:
        """Whether a peer's entry means it: by fingerprint, or by a name."""
        return self.sha256 in certificates or not self.names.isdisjoint(certificates)


def peer_certificate(connection: ssl.SSLSocket) -> PeerCertificate | None:
    """What the other side has shown in the handshake; None if nothing. Names: CN, SAN's DNS names and addresses."""
    encoded = connection.getpeercert(binary_form=True)
    shown: dict[str, Any] | None = connection.getpeercert()
    if encoded is None or not shown:
        return None
    subject = [value for part in shown.get("subject", ()) for key, value in part if key == "commonName"]
    alternatives = [value for kind, value in shown.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    return PeerCertificate(
        hashlib.sha256(encoded).hexdigest(), frozenset(name.lower() for name in (*subject, *alternatives))
    )


def why_no_handshake(error: OSError) -> str:
    """Why a handshake failed, in words of OpenSSL's."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return str(error.reason or "broken off").replace("_", " ").lower()
    return "silent" if isinstance(error, TimeoutError) else "broken off"


def server_context(tls: TLS) -> ssl.SSLContext:
    """What the node's own TLS port speaks.

    Raises:
        TLSFault: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context, tls.profile)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_SINGLE_DH_USE
    # A resumed session would outlive the certificate, and the binding, that it was opened with.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    if tls.profile is TLSProfile.BCP195_MODIFIED:
        context.load_dh_params(str(DHE_PARAMETERS))
    _load_own(context, tls.certificate_file, tls.key_file)
    if tls.ca_file is not None:
        _load_authorities(context, tls.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED if tls.asks_for_certificate else ssl.CERT_OPTIONAL
    return context


def client_context(tls: ClientTLS) -> ssl.SSLContext:
    """How a peer is called. Its certificate is always checked.

    Raises:
        TLSFault: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context, tls.profile)
    context.check_hostname = tls.verify is Verify.NAME
    context.verify_mode = ssl.CERT_REQUIRED
    _load_authorities(context, tls.ca_file)
    if tls.certificate_file is not None and tls.key_file is not None:
        _load_own(context, tls.certificate_file, tls.key_file)
    return context


def _restrict(context: ssl.SSLContext, profile: TLSProfile) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996: 1.0 and 1.1 must not be used
    context.set_ciphers(_SUITES[profile])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def _load_own(context: ssl.SSLContext, certificate_file: Path, key_file: Path) -> None:
    def no_password() -> bytes:
        raise TLSFault(f"{key_file}: has a password; the node starts without anyone to ask")

    check_secret_file(key_file)
    try:
        context.load_cert_chain(certificate_file, key_file, password=no_password)
    except OSError as error:  # ssl.SSLError is one
        raise TLSFault(f"{certificate_file}, {key_file}: cannot be used: {_why(error)}") from error


def _load_authorities(context: ssl.SSLContext, ca_file: Path) -> None:
    try:
        context.load_verify_locations(ca_file)
    except OSError as error:
        raise TLSFault(f"{ca_file}: cannot be used: {_why(error)}") from error


def _why(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or "no certificate in it")


class RenewedContext:
    """A context that is made anew when one of its files has changed; a change that cannot be used is told and ignored.

    Safe from several threads. Look at :meth:`current` for each connection.
    """

    def __init__(self, make: Callable[[], ssl.SSLContext], files: tuple[Path, ...]) -> None:
        self._make, self._files = make, files
        self._lock = threading.Lock()
        self._seen = self._look()
        self._context = make()
        self._fault = ""

    def current(self) -> ssl.SSLContext:
        """The context by the files as they are now, or as they last could be used."""
        with self._lock:
            seen = self._look()
            if seen != self._seen:
                self._seen = seen
                self._renew()
            return self._context

    @property
    def fault(self) -> str:
        """What is wrong with the files as they are now; empty if nothing is."""
        self.current()
        return self._fault

    def _renew(self) -> None:
        try:
            self._context = self._make()
        except SettingsError as error:
            self._fault = str(error)
            _log.error("certificates not renewed, the ones before stay in use", extra={"error": str(error)})
        else:
            self._fault = ""
            _log.info("certificates renewed", extra={"files": ", ".join(file.name for file in self._files)})

    def _look(self) -> tuple[tuple[int, ...], ...]:
        """What tells one state of the files from another; a file that is not there is a state too."""
        return tuple(_signs(file) for file in self._files)


def _signs(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except OSError:
        return ()
    # The mode too: a key that others could read is taken once they no longer can.
    return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode)


def certificate_end(certificate_file: Path, key_file: Path) -> datetime | None:
    """When a certificate of ours ends (UTC); None if it has ended. Python reads that of a shown certificate only.

    Raises:
        TLSFault: the files cannot be used.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load_own(server, certificate_file, key_file)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it is trusted itself
    _load_authorities(client, certificate_file)
    upstream, downstream = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = client.wrap_bio(downstream, upstream)
    called = server.wrap_bio(upstream, downstream, server_side=True)
    for _ in range(4):  # flights of a handshake
        try:
            for side in (caller, called):
                with suppress(ssl.SSLWantReadError):
                    side.do_handshake()
        except ssl.SSLCertVerificationError:
            return None
    shown: dict[str, Any] = caller.getpeercert() or {}
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(shown["notAfter"])), UTC)


def open_server_context(tls: TLS) -> RenewedContext:
    """The context of the node's TLS port, renewed with its files.

    Raises:
        SettingsError: a file cannot be used.
    """
    return RenewedContext(partial(server_context, tls), tls.files)


@cache
def open_client_context(tls: ClientTLS) -> RenewedContext:
    """The context for calls to a peer, renewed with its files; one for each peer in a process.

    Raises:
        SettingsError: a file cannot be used.
    """
    return RenewedContext(partial(client_context, tls), tls.files)
