"""The audit trail: what it says of where it was written, and the repository that receives it too."""

from pathlib import Path

from pydantic import Field, model_validator

from config.sections import Port, Section


class Syslog(Section):
    """An audit record repository that takes syslog over TLS (RFC 5425; PS3.15 A.6)."""

    host: str = Field(min_length=1, description="Its host name or address, as in its certificate")
    port: Port = Field(6514, description="TCP port")
    ca_file: Path | None = Field(
        None, description="PEM file of the authorities to trust in place of the system's; always checked"
    )
    certificate_file: Path | None = Field(None, description="PEM file of our certificate, if it asks for one")
    key_file: Path | None = Field(None, description="PEM file of the certificate's key")
    timeout_s: float = Field(10.0, gt=0, le=120, description="Network timeout")

    @model_validator(mode="after")
    def _key_has_certificate(self) -> "Syslog":
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        return self


class AuditSettings(Section):
    """The audit trail. It is always written, to the folder ``audit`` in the storage folder."""

    source_id: str | None = Field(
        None, min_length=1, max_length=64, description="AuditSourceID of the messages; empty = the AE title"
    )
    site_id: str | None = Field(None, min_length=1, max_length=64, description="AuditEnterpriseSiteID; empty = none")
    syslog: Syslog | None = Field(None, description="Repository that receives it too; empty = none")
