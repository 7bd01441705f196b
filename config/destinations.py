"""Where results go: storage SCPs and DICOMweb services, and what opens the doors of the latter."""

import os
import re
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from config.delivery import Confirm
from config.secret_files import check_secret_file
from config.sections import AETitle, Name, Port, Section, ServiceURL, SettingsError
from config.tls import ClientTLS


class ObjectKind(StrEnum):
    """Kinds of result objects a destination may ask for."""

    SEG = "seg"
    PMAP = "pmap"
    MR = "mr"
    SR = "sr"
    PDF = "pdf"
    OVERLAY = "overlay"
    DEFORMATION = "deformation"


#: What a destination receives that does not say: everything but the deformation fields.
USUAL_OBJECTS = tuple(kind for kind in ObjectKind if kind is not ObjectKind.DEFORMATION)

_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)[ \t]*")


class Destination(Section):
    """A storage SCP (ae_title, host, port) or a DICOMweb service (dicomweb_url) that receives results."""

    name: Name = Field(description="Name used in routes and logs")
    ae_title: AETitle | None = Field(None, description="Storage SCP: called AE title")
    host: str | None = Field(None, description="Storage SCP: address or host name")
    port: Port | None = Field(None, description="Storage SCP: TCP port")
    dicomweb_url: ServiceURL | None = Field(None, description="DICOMweb service: its root, for STOW-RS")
    headers_file: Path | None = Field(
        None, description="DICOMweb service: file with HTTP headers, one 'Name: value' a line, such as Authorization"
    )
    authorization_variable: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="DICOMweb service: environment variable with the value of the Authorization header",
    )
    ca_file: Path | None = Field(
        None, description="DICOMweb service: PEM file of the authorities to trust in place of the system's"
    )
    tls: ClientTLS | None = Field(None, description="Storage SCP: how it is called by TLS")
    objects: tuple[ObjectKind, ...] = Field(USUAL_OBJECTS, description="Kinds of objects it receives")
    deidentify: bool = Field(
        False, description="It gets de-identified copies of a trial's results, and never anything else"
    )
    confirm: Confirm = Field(
        Confirm.AUTO,
        description="What confirms that it has an object: commitment, query, none, or auto (commitment, else query)",
    )
    reports_as: AETitle | None = Field(
        None, description="Storage SCP: AE title under which it calls us with commitment results; empty = ae_title"
    )

    @model_validator(mode="after")
    def _is_one_of_two(self) -> "Destination":
        scp = {"ae_title": self.ae_title, "host": self.host, "port": self.port}
        web = {
            "headers_file": self.headers_file,
            "authorization_variable": self.authorization_variable,
            "ca_file": self.ca_file,
        }
        if self.dicomweb_url is None:
            missing = [key for key, value in scp.items() if value is None]
            if missing:
                raise ValueError(f"needs {', '.join(missing)}, or dicomweb_url in place of ae_title, host and port")
            extra = [key for key, value in web.items() if value is not None]
            if extra:
                raise ValueError(f"{', '.join(extra)}: only with dicomweb_url")
        else:
            extra = [key for key, value in {**scp, "reports_as": self.reports_as}.items() if value is not None]
            if extra:
                raise ValueError(f"{', '.join(extra)}: not together with dicomweb_url")
            if self.confirm is Confirm.COMMITMENT:
                raise ValueError("confirm: commitment needs ae_title, host and port")
            if self.tls is not None:
                raise ValueError("tls: of a storage SCP; a DICOMweb service has ca_file")
            if self.ca_file is not None and not self.dicomweb_url.startswith("https:"):
                raise ValueError("ca_file: only with an https address")
        return self

    @property
    def address(self) -> str:
        """Where it is, for people."""
        return self.dicomweb_url or f"{self.ae_title}@{self.host}:{self.port}"

    @property
    def tells_secrets(self) -> bool:
        """Whether its HTTP headers, such as Authorization, go where anyone on the way can read them."""
        if self.headers_file is None and self.authorization_variable is None:
            return False
        address = urlsplit(self.dicomweb_url or "")
        return address.scheme == "http" and not _is_this_machine(address.hostname or "")


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def http_headers(destination: Destination) -> dict[str, str]:
    """The HTTP headers that a DICOMweb service asks for, read anew each time, so that a token can be changed.

    Raises:
        SettingsError: file or variable cannot be used; what is in them is not told.
    """
    headers: dict[str, str] = {}
    if destination.headers_file is not None:
        try:
            lines = destination.headers_file.read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"headers_file {destination.headers_file}: cannot be read") from error
        check_secret_file(destination.headers_file)
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            found = _HEADER.fullmatch(line)
            if found is None:
                raise SettingsError(f"headers_file {destination.headers_file}: line {number} is not 'Name: value'")
            headers[found[1]] = found[2]
    if destination.authorization_variable is not None:
        value = os.environ.get(destination.authorization_variable, "")
        if _HEADER.fullmatch(f"Authorization: {value}") is None:
            raise SettingsError(
                f"authorization_variable {destination.authorization_variable}: is not set, or no header"
            )
        headers["Authorization"] = value
    return headers
