"""Who may send to the node, and what of each caller must be right."""

import ipaddress
import re

from pydantic import Field, field_validator, model_validator

from config.sections import AETitle, Port, Section

#: SHA-256 of a certificate (DER), as openssl shows it: 64 hex digits, with or without colons.
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_SOP_CLASS = re.compile(r"[0-9]+(\.[0-9]+)+|[A-Za-z0-9]+")


class Peer(Section):
    """A calling application that may send to the node. An AE title may stand in several entries."""

    ae_title: AETitle = Field(description="Calling AE title")
    host: str | None = Field(
        None,
        min_length=1,
        description="Its address, host name, or network (10.0.0.0/24); calls from elsewhere are refused",
    )
    port: Port | None = Field(None, description="Where it takes the result of its storage commitment requests")
    tls: bool = Field(False, description="Its calls are refused unless they come by TLS")
    certificate: tuple[str, ...] = Field(
        (),
        description="Its certificate, which binds the AE title to it: SHA-256 fingerprint, or subject CN or DNS name;"
        " several while one replaces another",
    )
    sop_classes: tuple[str, ...] = Field(
        (), description="Storage SOP classes that it may send (UID or keyword, e.g. MRImageStorage); empty = all"
    )

    @field_validator("certificate", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("certificate")
    @classmethod
    def _fingerprints_alike(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_plain(one) for one in value)

    @field_validator("sop_classes")
    @classmethod
    def _look_like_classes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            if _SOP_CLASS.fullmatch(one) is None:
                raise ValueError(f"{one!r} is neither a UID nor a keyword such as MRImageStorage")
        return value

    @model_validator(mode="after")
    def _host_is_one(self) -> "Peer":
        if self.port is not None and self.host is None:
            raise ValueError("port: needs host")
        if self.host is not None and "/" in self.host:
            try:
                ipaddress.ip_network(self.host)
            except ValueError as error:
                raise ValueError(f"host: {self.host!r} is no network: {error}") from error
            if self.port is not None:
                raise ValueError("port: needs one address as host, not a network")
        return self

    @property
    def needs_tls(self) -> bool:
        """Whether a call must come by TLS."""
        return self.tls or bool(self.certificate)


def _plain(certificate: str) -> str:
    """A fingerprint as 64 small hex digits; a name in small letters."""
    text = certificate.strip().lower()
    digits = text.removeprefix("sha256:").replace(":", "")
    if _FINGERPRINT.fullmatch(digits):
        return digits
    if not text or text.startswith("sha256:") or ":" in text:
        raise ValueError(f"{certificate!r} is neither a SHA-256 fingerprint (64 hex digits) nor a name")
    return text
