"""TLS by BCP 195 (PS3.15 B.12 and B.13): the node's own port, and calls to others."""

from enum import StrEnum
from pathlib import Path

from pydantic import Field, model_validator

from config.sections import Port, Section


class TLSProfile(StrEnum):
    """Which secure transport connection profile is spoken."""

    BCP195 = "bcp195"
    BCP195_MODIFIED = "bcp195-modified"


class ClientCertificate(StrEnum):
    """Whether a caller must show a certificate."""

    REQUIRED = "required"
    OPTIONAL = "optional"


class TLS(Section):
    """A second port of the node that is spoken to by TLS alone."""

    port: Port = Field(2762, description="TCP port for DICOM by TLS (2762 is the registered one)")
    certificate_file: Path = Field(description="PEM file with the node's certificate and those that lead to its root")
    key_file: Path = Field(description="PEM file with its key, without password; others must not be able to read it")
    ca_file: Path | None = Field(None, description="PEM file of the authorities whose certificates callers may show")
    profile: TLSProfile = Field(
        TLSProfile.BCP195, description="bcp195 (PS3.15 B.12) or bcp195-modified (B.13: fixed suites, with DHE)"
    )
    client_certificate: ClientCertificate = Field(
        ClientCertificate.REQUIRED, description="Whether a caller must show a certificate: required, or optional"
    )

    @model_validator(mode="after")
    def _callers_can_be_checked(self) -> "TLS":
        if self.client_certificate is ClientCertificate.REQUIRED and self.ca_file is None:
            raise ValueError("ca_file: needed to check the certificates of callers")
        return self

    @property
    def asks_for_certificate(self) -> bool:
        """Whether a caller must show a certificate."""
        return self.client_certificate is ClientCertificate.REQUIRED

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read anew when it changes."""
        return tuple(file for file in (self.certificate_file, self.key_file, self.ca_file) if file is not None)


class Verify(StrEnum):
    """What is checked of a called peer's certificate."""

    NAME = "name"
    AUTHORITY = "authority"


class ClientTLS(Section):
    """How a peer is called by TLS. Its certificate is always checked."""

    ca_file: Path = Field(description="PEM file of the authorities whose certificates the peer may show")
    certificate_file: Path | None = Field(None, description="PEM file with the certificate that the node shows")
    key_file: Path | None = Field(None, description="PEM file with its key; others must not be able to read it")
    server_name: str | None = Field(
        None, min_length=1, description="Name in the peer's certificate, if it is not its host"
    )
    verify: Verify = Field(
        Verify.NAME, description="name: authority and name must be right; authority: any certificate of ca_file will do"
    )
    profile: TLSProfile = Field(TLSProfile.BCP195, description="bcp195, or bcp195-modified")

    @model_validator(mode="after")
    def _key_has_certificate(self) -> "ClientTLS":
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file: both, or none")
        if self.verify is Verify.AUTHORITY and self.server_name is not None:
            raise ValueError("server_name: not checked with verify: authority")
        return self

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read anew when it changes."""
        return tuple(file for file in (self.ca_file, self.certificate_file, self.key_file) if file is not None)


def called_back(tls: TLS) -> ClientTLS | None:
    """How a peer that calls by TLS is called back: the same certificates, checked against the same authorities."""
    if tls.ca_file is None:
        return None
    return ClientTLS(
        ca_file=tls.ca_file,
        certificate_file=tls.certificate_file,
        key_file=tls.key_file,
        verify=Verify.AUTHORITY,
        profile=tls.profile,
    )
