"""Scanners that are not there: phantom exams as the DICOM files that scanners of three vendors would write.

All flavours are written from the same exam, so their maps must be the same. Every file says that it is simulated and
for research use only.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from dicom_io.simulated_appointment import USUAL_APPOINTMENT, Appointment
from dicom_io.simulated_classic import write_classic
from dicom_io.simulated_enhanced import write_enhanced
from dicom_io.simulated_ge import GE, add_ge_attributes, ge_anatomy, ge_series
from dicom_io.simulated_philips import (
    PHILIPS,
    add_philips_attributes,
    add_philips_frame,
    add_philips_object,
    philips_series,
)
from dicom_io.simulated_series import Scanner, Series, Study, digest_of, study_of
from dicom_io.simulated_siemens import (
    SIEMENS,
    add_siemens_attributes,
    add_siemens_frame,
    add_siemens_object,
    siemens_series,
)
from processing.phantom import PhantomExam
from processing.results import ImageVolume

VENDORS = ("ge", "philips", "siemens")

_CLASSIC_ATTRIBUTES = {
    "ge": add_ge_attributes,
    "philips": add_philips_attributes,
    "siemens": add_siemens_attributes,
}
_ENHANCED_ATTRIBUTES = {
    "philips": (add_philips_object, add_philips_frame),
    "siemens": (add_siemens_object, add_siemens_frame),
}


def check_flavour(
    protocol: str,
    vendor: str,
    *,
    enhanced: bool = False,
    one_echo_time: bool = False,
    one_scan: bool = False,
    phase_images: bool = False,
) -> None:
    """Raises ValueError, which says what there is, when a flavour of :func:`write_exam` is not simulated."""
    if vendor not in VENDORS:
        raise ValueError(f"vendor {vendor!r} is not simulated; there are: {', '.join(VENDORS)}")
    if protocol != "mapss" and vendor != "ge":
        raise ValueError(f"protocol {protocol} is simulated for ge only, not for {vendor}")
    if enhanced and vendor == "ge":
        raise ValueError("Enhanced MR is simulated for philips and siemens; GE sends research MAPSS as classic MR")
    if one_echo_time and vendor != "ge":
        raise ValueError(f"one EchoTime in place of the times is GE's way; {vendor} never writes the times there")
    if one_scan and vendor != "philips":
        raise ValueError("T1rho and T2 in one scan are a choice of philips; ge has them so, siemens a series for each")
    if phase_images and vendor != "philips":
        raise ValueError("phase images beside the magnitude are simulated for philips only")


def write_exam(
    exam: PhantomExam,
    folder: Path,
    *,
    vendor: str = "ge",
    enhanced: bool = False,
    one_echo_time: bool = False,
    one_scan: bool = False,
    phase_images: bool = False,
    appointment: Appointment = USUAL_APPOINTMENT,
    with_anatomy: bool = True,
) -> list[Path]:
    """Write an exam as DICOM: the T2 FSE anatomy and the relaxometry, as a vendor's scanner writes them.

    Args:
        exam: the simulated visit; its subject becomes the PatientID.
        folder: gets one subfolder for each series.
        vendor: whose headers to imitate: ``ge``, ``philips`` or ``siemens``.
        enhanced: Enhanced MR Image Storage, as Philips and Siemens (XA) send it, rather than classic MR.
        one_echo_time: as GE research sequences that write one EchoTime into all images.
        one_scan: T1rho and T2 in one scan of Philips, which then lists both in its name, rather than in two.
        phase_images: phase images beside the magnitude, as Philips can send them.
        appointment: who was scanned, when, for which trial, on which scanner of the vendor.
        with_anatomy: the T2 FSE, too.

    Returns:
        The files written, in the order of acquisition: anatomy first; in a series by InstanceNumber.

    Raises:
        ValueError: a flavour that is not simulated; the message says which there are.
    """
    choices = {
        "enhanced": enhanced,
        "one_echo_time": one_echo_time,
        "one_scan": one_scan,
        "phase_images": phase_images,
    }
    check_flavour(exam.protocol, vendor, **choices)
    # the same exam from two scanners is two exams: nothing of one may have a UID of the other
    chosen = [name for name, is_chosen in choices.items() if is_chosen]
    scanner, series = _series_of(exam, vendor, one_echo_time=one_echo_time, one_scan=one_scan, phase=phase_images)
    if vendor == "ge" and appointment.series_description:
        series[-1] = replace(series[-1], description=appointment.series_description)
    study = study_of(exam, "" if vendor == "ge" and not chosen else ", ".join([vendor, *chosen]), appointment)
    series = series if with_anatomy else series[1:]
    if enhanced:
        add_object, add_frame = _ENHANCED_ATTRIBUTES[vendor]
        return [
            write_enhanced(one, study, scanner, folder, add_object_attributes=add_object, add_frame_groups=add_frame)
            for one in series
        ]
    add_attributes = _CLASSIC_ATTRIBUTES[vendor]
    return [path for one in series for path in write_classic(one, study, scanner, folder, add_attributes)]


def study_uid_of(exam: PhantomExam, appointment: Appointment) -> str:
    """StudyInstanceUID of an exam that :func:`write_exam` writes as GE's."""
    return str(study_of(exam, "", appointment).uid("study"))


def write_slice_stack(
    volume: ImageVolume,
    folder: Path,
    *,
    series_description: str = "SAG T2 FSE",
    subject: str = "STACK-001",
    visit: int = 1,
    slice_thickness_mm: float | None = None,
) -> list[Path]:
    """Write any stack of slices as GE's T2 FSE with one image for each slice, e.g. real images without headers.

    Args:
        volume: non-negative signal (slices, rows, columns) and its affine.
        folder: gets one subfolder for the series.
        series_description: what the series calls itself.
        subject: PatientID.
        visit: number of the visit, sets the study date.
        slice_thickness_mm: default: the distance of slices.

    Raises:
        ValueError: negative or non-finite signal, which the stored unsigned pixels cannot hold.
    """
    spacing_mm = float(np.linalg.norm(volume.affine[:3, 0]))
    study = Study(subject, visit, digest_of(volume.array), slice_thickness_mm or spacing_mm)
    return write_classic(ge_anatomy(volume, series_description), study, GE, folder, add_ge_attributes)


def write_truth(exam: PhantomExam, path: Path) -> None:
    """Write the truth (.npz) on the native grid: labels, t1rho_ms, t2_ms (slices, rows, columns), affine (LPS mm)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        labels=exam.labels,
        t1rho_ms=exam.t1rho_ms,
        t2_ms=exam.t2_ms,
        affine=exam.affine,
        upper_labels=exam.upper_labels,
        classes=exam.classes,
        grades=np.array(exam.grades, dtype=np.uint8),
    )


def _series_of(
    exam: PhantomExam, vendor: str, *, one_echo_time: bool, one_scan: bool, phase: bool
) -> tuple[Scanner, list[Series]]:
    if vendor == "philips":
        return PHILIPS, philips_series(exam, one_scan=one_scan, phase_images=phase)
    if vendor == "siemens":
        return SIEMENS, siemens_series(exam)
    return GE, ge_series(exam, one_echo_time=one_echo_time)
