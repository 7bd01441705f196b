"""Looks at every door of the node before it opens: who is served, and whether keys and secrets can be used."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from config.destinations import http_headers
from config.secret_files import check_secret_file, read_secret, secret_variable
from config.settings import Settings, SettingsError
from config.tls import ClientTLS
from config.web import WebAccess, is_loopback
from dicom_io.access import callers_of
from dicom_io.tls import certificate_end, client_context, open_client_context, open_server_context, server_context
from service import audit_repository
from service.web_tokens import read_tokens

#: A certificate that ends within this time is told of: a hospital's authority may take weeks.
SOON = timedelta(days=30)


def check_doors(settings: Settings) -> tuple[str, ...]:
    """What an operator should know of who is let in; a sentence each, without secrets.

    Raises:
        SettingsError: a certificate, key or secret cannot be used, or others may read it; a SOP class is unknown.
    """
    callers_of(settings)
    if settings.tls is not None:
        server_context(settings.tls)
    for called in _called(settings):
        client_context(called)
    for destination in settings.destinations:
        http_headers(destination)
    _check_web(settings)
    _check_syslog(settings)
    return (*_notes(settings), *_ending(settings))


def watch_certificates(settings: Settings) -> Callable[[], str]:
    """What is wrong with the certificates of the node, in words, or nothing; to be asked again and again.

    Files that changed and cannot be used (those before stay in use, until the node starts again), and certificates that
    have ended or soon will.
    """
    contexts = [] if settings.tls is None else [open_server_context(settings.tls)]
    contexts += [open_client_context(tls) for tls in _called(settings)]

    def look() -> str:
        faults = [context.fault for context in contexts]
        return "; ".join(dict.fromkeys(fault for fault in (*faults, *_ending(settings)) if fault))

    return look


def _called(settings: Settings) -> list[ClientTLS]:
    found = (*(one.tls for one in settings.sources), *(one.tls for one in settings.destinations))
    return [tls for tls in found if tls is not None]


def _ending(settings: Settings) -> Iterator[str]:
    own = {(tls.certificate_file, tls.key_file) for tls in _called(settings)}
    own |= {(one.certificate_file, one.key_file) for one in (settings.tls, settings.web) if one is not None}
    for certificate_file, key_file in sorted(own, key=str):
        if certificate_file is None or key_file is None:
            continue
        try:
            end = certificate_end(certificate_file, key_file)
        except SettingsError:
            continue  # a fault of its own
        if end is None:
            yield f"the certificate in {certificate_file} has ended"
        elif end < datetime.now(UTC) + SOON:
            yield f"the certificate in {certificate_file} ends on {end:%Y-%m-%d}"


def _check_web(settings: Settings) -> None:
    web = settings.web
    if web.key_file is not None:
        check_secret_file(web.key_file)
    if web.access is WebAccess.TOKENS and web.tokens_file is not None:
        read_tokens(web.tokens_file)
    if web.access is WebAccess.PROXY and web.proxy is not None:
        if web.proxy.secret_file is not None:
            read_secret(web.proxy.secret_file)
        else:
            secret_variable(str(web.proxy.secret_variable))


def _check_syslog(settings: Settings) -> None:
    syslog = settings.audit.syslog
    if syslog is None:
        return
    if syslog.key_file is not None:
        check_secret_file(syslog.key_file)
    try:
        audit_repository.client_context(syslog)
    except OSError as error:
        raise SettingsError(f"audit.syslog: its certificates cannot be used: {error.strerror or error}") from error


def _notes(settings: Settings) -> Iterator[str]:
    is_far = not is_loopback(settings.bind)
    if not settings.peers and is_far:
        named = " and the sources" if settings.sources else ""
        yield f"bind is {settings.bind}, but there are no peers: nobody but callers on this machine{named} is served"
    for peer in settings.peers:
        if peer.host is None and is_far:
            yield f"peer {peer.ae_title} has no host: whoever says that AE title is served, from any address"
        elif is_far and not peer.needs_tls:
            yield f"peer {peer.ae_title} is told by its address alone; by TLS its certificate would tell"
    if os.geteuid() == 0:
        yield "the node runs as root; an account of its own would do (docker/discnode.service)"
