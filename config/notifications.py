"""Who is told when something needs a person: webhooks and e-mail, and of which events."""

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from config.secret_files import check_secret_file
from config.sections import Name, Port, Section, ServiceURL, SettingsError

_Address = Annotated[str, StringConstraints(pattern=r"^[^@\s<>,;]+@[^@\s<>,;]+$", max_length=254)]
_Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_PRINTABLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


class Event(StrEnum):
    """What can be told."""

    NOT_READY = "not_ready"  # the node cannot receive or analyse
    DEGRADED = "degraded"  # it can, but something else needs a look
    RECOVERED = "recovered"  # it is ready again, with nothing to say
    DISK_LOW = "disk_low"
    JOB_PARKED = "job_parked"
    EXAM_HELD = "exam_held"  # held or refused, with its reason code
    VISIT_HELD = "visit_held"  # an exam of a trial that a person must look at, with its reason code
    VISIT_MISSED = "visit_missed"  # a visit of a trial that was expected, and no scan came
    DESTINATION_FAILING = "destination_failing"
    AUDIT_BROKEN = "audit_broken"  # the chain of the audit trail does not hold, or it cannot be written
    PHANTOM = "phantom"  # a QC phantom says hold, or was not scanned in time
    RESTARTED = "restarted"  # a process of the node, or the node itself, ended unexpectedly


class Webhook(Section):
    """An address that gets a JSON object by POST."""

    name: Name = Field(description="Name used in logs")
    url: ServiceURL | None = Field(None, description="Where it is; https, or http on the own network")
    url_file: Path | None = Field(None, description="File with its address, where the address itself is a secret")
    url_variable: _Variable | None = Field(None, description="Environment variable with its address")
    events: tuple[Event, ...] = Field(tuple(Event), description="Which events; default all")
    authorization_file: Path | None = Field(None, description="File with the value of the Authorization header")
    authorization_variable: _Variable | None = Field(
        None, description="Environment variable with the value of the Authorization header"
    )
    ca_file: Path | None = Field(None, description="PEM file of the authorities to trust in place of the system's")
    timeout_s: float = Field(10.0, gt=0, le=120, description="Network timeout")

    @model_validator(mode="after")
    def _has_one_address(self) -> "Webhook":
        if sum(one is not None for one in (self.url, self.url_file, self.url_variable)) != 1:
            raise ValueError("needs one of url, url_file and url_variable")
        if self.authorization_file is not None and self.authorization_variable is not None:
            raise ValueError("authorization_file and authorization_variable: only one of them")
        return self

    def address(self) -> str:
        """Where it is, read anew each time.

        Raises:
            SettingsError: it cannot be read, or is no address.
        """
        if self.url is not None:
            return self.url
        found = secret(self.url_file, self.url_variable) or ""
        if re.fullmatch(r"https?://[^\s/?#@]+[^\s#]*", found) is None:
            raise SettingsError(f"{self.url_file or self.url_variable}: holds no http or https address")
        return found


class Email(Section):
    """A mail server, and who gets mail by it."""

    name: Name = Field(description="Name used in logs")
    host: str = Field(min_length=1, description="SMTP server")
    port: Port = Field(587, description="TCP port")
    security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="starttls; tls from the first byte (port 465); none: only for a server on this machine"
    )
    sender: _Address = Field(description="Address in From")
    recipients: tuple[_Address, ...] = Field(min_length=1, description="Addresses in To")
    events: tuple[Event, ...] = Field(tuple(Event), description="Which events; default all")
    user: str | None = Field(None, min_length=1, description="Name to log in with; empty = no login")
    password_file: Path | None = Field(None, description="File with the password")
    password_variable: _Variable | None = Field(None, description="Environment variable with the password")
    ca_file: Path | None = Field(None, description="PEM file of the authorities to trust in place of the system's")
    timeout_s: float = Field(15.0, gt=0, le=120, description="Network timeout")

    @model_validator(mode="after")
    def _login_is_whole(self) -> "Email":
        has_password = (self.password_file is not None) + (self.password_variable is not None)
        if has_password != (self.user is not None):
            raise ValueError("user goes together with one of password_file and password_variable")
        if self.user is not None and self.security == "none":
            raise ValueError("security: a password is only sent with starttls or tls")
        return self


class Notifications(Section):
    """Rules of telling. A notification holds no identity and no UID."""

    webhooks: tuple[Webhook, ...] = Field((), description="Addresses that get JSON by POST")
    emails: tuple[Email, ...] = Field((), description="Mail servers and recipients")
    interval_s: float = Field(
        3600.0, gt=0, le=604_800, description="The same cause is told at most once in so many seconds"
    )
    group_s: float = Field(30.0, ge=0, le=3600, description="What happens within so many seconds goes into one message")
    destination_failing_s: float = Field(
        1800.0,
        gt=0,
        le=2_592_000,
        description="A destination that has taken nothing for so long, though tried, is told",
    )
    link: ServiceURL | None = Field(None, description="Address of the node's pages, put into each message")

    @model_validator(mode="after")
    def _names_differ(self) -> "Notifications":
        names = [*(one.name for one in self.webhooks), *(one.name for one in self.emails)]
        if len(set(names)) < len(names):
            raise ValueError("two webhooks or e-mails have the same name")
        return self


def secret(file: Path | None, variable: str | None) -> str | None:
    """A password or header value from its file or environment variable, read anew each time; None if neither is named.

    Raises:
        SettingsError: it cannot be read, or others may read it too; what is in it is not told.
    """
    if file is not None:
        try:
            value = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{file}: cannot be read") from error
        check_secret_file(file)
        where = str(file)
    elif variable is not None:
        value, where = os.environ.get(variable, "").strip(), f"environment variable {variable}"
    else:
        return None
    if _PRINTABLE.fullmatch(value) is None:
        raise SettingsError(f"{where}: is empty, or not one line of printable ASCII")
    return value
