"""How a destination is called: as whom, with what time to answer, and with what opens its door."""

from config.destinations import http_headers
from config.settings import Destination, Settings, SettingsError
from dicom_io.sender import Peer, PeerUnavailable
from dicom_io.stow import WebService


def web_service_of(destination: Destination, settings: Settings) -> WebService | None:
    """The DICOMweb service of a destination; None where it is a storage SCP.

    Raises:
        PeerUnavailable: what opens its door cannot be read now.
    """
    if destination.dicomweb_url is None:
        return None
    try:
        headers = http_headers(destination)
    except SettingsError as error:
        raise PeerUnavailable(str(error)) from error
    return WebService(destination.dicomweb_url, settings.delivery.timeout_s, headers, destination.ca_file)


def peer_of(destination: Destination, settings: Settings) -> Peer:
    """The storage SCP of a destination that is none of a DICOMweb service."""
    host, port, title = destination.host, destination.port, destination.ae_title
    assert host is not None  # a Destination has the one or the other
    assert port is not None
    assert title is not None
    return Peer(host, port, title, settings.ae_title, settings.delivery.timeout_s, destination.tls)
