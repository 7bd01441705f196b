"""PACS that are asked what an exam holds, and for what has not come."""

from enum import StrEnum
from pathlib import Path

from pydantic import Field, model_validator

from config.sections import AETitle, Name, Port, Section, ServiceURL
from config.tls import ClientTLS


class Retrieval(StrEnum):
    """Ways to fetch an object."""

    C_GET = "c-get"
    C_MOVE = "c-move"
    WADO_RS = "wado-rs"


class Source(Section):
    """A PACS that is asked what an exam holds (C-FIND), and for what has not come."""

    name: Name = Field(description="Name used in logs")
    ae_title: AETitle = Field(description="Called AE title")
    host: str = Field(description="Address or host name")
    port: Port = Field(description="TCP port")
    calling_ae_titles: tuple[AETitle, ...] = Field(
        (), description="It knows the exams that these AE titles send; empty = all exams"
    )
    retrieve: tuple[Retrieval, ...] = Field(
        tuple(Retrieval),
        description="Ways to fetch what is missing, tried in this order (wado-rs only with dicomweb_url); empty = it is"
        " only asked",
    )
    dicomweb_url: ServiceURL | None = Field(None, description="Root of its DICOMweb service, for wado-rs")
    ca_file: Path | None = Field(
        None, description="DICOMweb service: PEM file of the authorities to trust in place of the system's"
    )
    timeout_s: float = Field(30.0, gt=0, le=600, description="Network and response timeout")
    tls: ClientTLS | None = Field(None, description="How it is called by TLS, and then its own calls must come by TLS")

    @model_validator(mode="after")
    def _wado_has_url(self) -> "Source":
        if self.retrieve == (Retrieval.WADO_RS,) and self.dicomweb_url is None:
            raise ValueError("retrieve: wado-rs needs dicomweb_url")
        if self.ca_file is not None and not (self.dicomweb_url or "").startswith("https:"):
            raise ValueError("ca_file: only with an https address as dicomweb_url")
        return self
