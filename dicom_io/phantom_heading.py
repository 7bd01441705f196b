"""Which scanner scanned a phantom, and when, as far as its headers tell."""

from datetime import datetime

from pydicom.multival import MultiValue

from dicom_io.sources import SourceExam, text_of
from processing.visits import Acquisition


def read_scanner(source: SourceExam) -> Acquisition:
    """Serial, software, coil and time of a scan; "" or None where the headers are silent."""
    header = source.grid_instances[0]
    versions = header.get("SoftwareVersions") or ""
    software = "\\".join(map(str, versions)) if isinstance(versions, MultiValue) else str(versions)
    return Acquisition(
        manufacturer=text_of(header, "Manufacturer"),
        model=text_of(header, "ManufacturerModelName"),
        device_serial=text_of(header, "DeviceSerialNumber"),
        software_versions=software,
        receive_coil=text_of(header, "ReceiveCoilName"),
        acquired_at=_moment(
            text_of(header, "AcquisitionDate") or text_of(header, "StudyDate"), text_of(header, "AcquisitionTime")
        ),
    )


def _moment(day: str, clock: str) -> datetime | None:
    try:
        return datetime.strptime(f"{day} {clock[:6].ljust(6, '0')}", "%Y%m%d %H%M%S")
    except ValueError:
        return None
