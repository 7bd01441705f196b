"""The HTTP server: where it listens, and who is let in."""

import ipaddress
from enum import StrEnum
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from config.sections import Section


class WebAccess(StrEnum):
    """How a caller of the HTTP server shows who it is."""

    LOOPBACK = "loopback"
    TOKENS = "tokens"
    PROXY = "proxy"


class WebProxy(Section):
    """A reverse proxy that has asked who the user is, and says so in headers."""

    addresses: tuple[str, ...] = Field(min_length=1, description="Addresses or networks that the proxy calls from")
    secret_file: Path | None = Field(None, description="File with the secret that the proxy sends in X-Discnode-Secret")
    secret_variable: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="The same in an environment variable"
    )
    user_header: str = Field("X-Remote-User", pattern=r"^[A-Za-z0-9-]+$", description="Header with the user's name")
    role_header: str = Field(
        "X-Remote-Role", pattern=r"^[A-Za-z0-9-]+$", description="Header with the role: viewer, reviewer, admin"
    )

    @field_validator("addresses")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            ipaddress.ip_network(one)
        return value

    @model_validator(mode="after")
    def _has_secret(self) -> "WebProxy":
        if (self.secret_file is None) == (self.secret_variable is None):
            raise ValueError("needs secret_file or secret_variable")
        return self


class Web(Section):
    """Health endpoints and API. Beyond the loopback interface only with ``access`` tokens (by TLS) or proxy."""

    bind: str = Field("127.0.0.1", description="Address of the HTTP server")
    port: int = Field(0, ge=0, le=65535, description="TCP port; 0 = no HTTP server")
    access: WebAccess = Field(
        WebAccess.LOOPBACK, description="Who is let in: loopback (anyone on this machine), tokens, proxy"
    )
    tokens_file: Path | None = Field(None, description="tokens: file that discnode web-token writes")
    proxy: WebProxy | None = Field(None, description="proxy: the reverse proxy that says who calls")
    certificate_file: Path | None = Field(None, description="PEM file with the server's certificate: HTTPS")
    key_file: Path | None = Field(None, description="PEM file with its key; others must not be able to read it")

    @model_validator(mode="after")
    def _doors_are_shut(self) -> "Web":
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file: both, or none")
        if self.access is WebAccess.TOKENS and self.tokens_file is None:
            raise ValueError("access: tokens needs tokens_file")
        if self.access is WebAccess.PROXY and self.proxy is None:
            raise ValueError("access: proxy needs proxy")
        if is_loopback(self.bind):
            return self
        if self.access is WebAccess.LOOPBACK:
            raise ValueError(
                f"bind: {self.bind} is reachable from other machines, and access: loopback asks nobody who they are;"
                " set access to tokens or proxy, or bind to 127.0.0.1"
            )
        if self.access is WebAccess.TOKENS and self.certificate_file is None:
            raise ValueError(
                f"bind: {self.bind} is reachable from other machines, and tokens must not travel in the clear; give"
                " certificate_file and key_file, or bind to 127.0.0.1 behind a reverse proxy"
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether an address or name means this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
