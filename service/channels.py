"""The ways a notification goes out: a POST of JSON, and e-mail. A way that does not work says why."""

import json
import smtplib
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

from config.notifications import Email, Event, Notifications, Webhook, secret
from config.sections import SettingsError


class NotDelivered(Exception):
    """The message was not taken; the text says why, without secrets."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A way out, and the events it is for. ``send(message)`` raises NotDelivered."""

    name: str
    events: tuple[Event, ...]
    send: Callable[[Mapping[str, Any]], None]


def open_channels(settings: Notifications) -> tuple[Channel, ...]:
    """The configured ways."""
    hooks = [Channel(one.name, one.events, partial(_post, one)) for one in settings.webhooks]
    mails = [Channel(one.name, one.events, partial(_mail, one)) for one in settings.emails]
    return (*hooks, *mails)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An address that sends us elsewhere is wrong: what opens its door must not go there."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nothing."""


def _post(hook: Webhook, message: Mapping[str, Any]) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": "discnode"}
    try:
        authorization = secret(hook.authorization_file, hook.authorization_variable)
        if authorization is not None:
            headers["Authorization"] = authorization
        request = urllib.request.Request(hook.address(), json.dumps(message).encode(), headers, method="POST")
        handlers = [_NoRedirect(), urllib.request.HTTPSHandler(context=_context(hook.ca_file))]
        with urllib.request.build_opener(*handlers).open(request, timeout=hook.timeout_s) as answer:
            answer.read(1024)
    except urllib.error.HTTPError as error:
        error.close()
        raise NotDelivered(f"it answers {error.code}") from error
    except (OSError, HTTPException, SettingsError, ValueError) as error:
        raise NotDelivered(_words(error)) from error


def _mail(mail: Email, message: Mapping[str, Any]) -> None:
    letter = EmailMessage()
    letter["From"], letter["To"] = mail.sender, ", ".join(mail.recipients)
    letter["Subject"] = _subject(message)
    letter["Date"], letter["Message-ID"] = formatdate(), make_msgid(domain=mail.sender.rpartition("@")[2])
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content(_body(message))
    try:
        password = secret(mail.password_file, mail.password_variable)
        if mail.security == "tls":
            context = _context(mail.ca_file)
            server: smtplib.SMTP = smtplib.SMTP_SSL(mail.host, mail.port, timeout=mail.timeout_s, context=context)
        else:
            server = smtplib.SMTP(mail.host, mail.port, timeout=mail.timeout_s)
        with server:
            if mail.security == "starttls":
                server.starttls(context=_context(mail.ca_file))  # a server that offers none raises: nothing goes plain
            if mail.user is not None and password is not None:
                server.login(mail.user, password)
            refused = server.send_message(letter)
        if refused:
            raise NotDelivered(f"{len(refused)} of {len(mail.recipients)} recipients were refused")
    except smtplib.SMTPResponseException as error:
        raise NotDelivered(f"the mail server answers {error.smtp_code}") from error
    except (OSError, smtplib.SMTPException, SettingsError, ValueError) as error:
        raise NotDelivered(_words(error)) from error


def _subject(message: Mapping[str, Any]) -> str:
    facts: Sequence[Mapping[str, Any]] = message["events"]
    more = f" and {len(facts) - 1} more" if len(facts) > 1 else ""
    return f"[{message['node']}] {facts[0]['text'] if facts else 'nothing'}"[:150] + more


def _body(message: Mapping[str, Any]) -> str:
    lines = [f"{fact['at']}  {fact['event']}: {fact['text']}" for fact in message["events"]]
    link = [f"\n{message['link']}"] if message.get("link") else []
    return "\n".join([*lines, *link, "\n-- \ndiscnode, for research use only", ""])


def _context(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _words(error: Exception) -> str:
    """What went wrong; of a library's error its kind alone, for its text may quote what was sent."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, (SettingsError, ssl.SSLCertVerificationError)):
        return str(reason)
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return type(reason).__name__
