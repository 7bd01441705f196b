"""Exams good, odd and broken, each with the verdict it must get: the zoo of tests and benchmark."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from pydicom.dataset import FileDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from zoo_changes import (
    PHILIPS_REAL,
    as_ge_enhanced,
    complex_parts,
    concatenated,
    eighth_time,
    half_of_pixels,
    keep_slices,
    last_frame_off,
    modality_lut,
    named_rle,
    nested_deeply,
    no_scale_slope,
    noise_in_pixels,
    one_frame_more,
    one_of,
    one_slice_shifted,
    other_slopes,
    other_times,
    other_triggers,
    overlay_bits,
    phases_beside,
    private_syntax,
    raw_value,
    real_mapss_times,
    relabelled,
    repeated_time,
    repositioned,
    reversed_numbers,
    same_cell,
    second_study,
    shifted,
    smaller_matrix,
    study_for_each_time,
    t1rho_only,
    t2_scan,
    turned,
    two_contents,
    two_dynamics,
    two_uids,
    upside_down,
    without_second_parts,
)
from zoo_material import (
    N_SLICES,
    Build,
    Images,
    beside,
    compressed,
    content,
    copies,
    copy_of,
    each,
    echo,
    encoded,
    files_of,
    made,
    new_uid,
    one,
    only,
    phantom,
    raw_files,
    real,
    save,
    scan,
    setting,
    signed,
    without,
)

from config import protocol_cards
from config.protocol_cards import ProtocolCard, load_cards
from config.settings import Repeats
from dicom_io.series import assemble_exam
from dicom_io.volume_reader import ExamImages, read_exam
from processing.refusal import UnsuitableInput
from service.exam_files import read_exam_files


@dataclass(frozen=True)
class Verdict:
    """What became of an exam: the protocols that are measured, or the codes of the refusal; and in words."""

    measured: tuple[str, ...] = ()
    codes: frozenset[str] = frozenset()
    text: str = ""
    exam: ExamImages | None = None

    @property
    def word(self) -> str:
        return "measured by " + " + ".join(self.measured) if self.measured else ", ".join(sorted(self.codes))


@dataclass(frozen=True)
class Specimen:
    """One exam of the zoo, with what must become of it.

    ``says``: a part of the reason's text. ``has_truth``: the measured signal must be that of the simulated exam, up to
    one factor for all images; ``flip``: with its rows the other way round.
    """

    name: str
    kind: str  # "good", "odd" or "broken"
    build: Build
    measured: tuple[str, ...] = ()
    codes: frozenset[str] = frozenset()
    says: str = ""
    has_truth: bool = False
    flip: bool = False
    cards: Callable[[], tuple[ProtocolCard, ...]] = load_cards
    repeats: Repeats = Repeats.HOLD


def judge(folder: Path, specimen: Specimen) -> Verdict:
    """What discnode makes of the files of a specimen, pixels included."""
    files = read_exam_files([folder])
    assembly = assemble_exam(files.facts, specimen.cards(), repeats=specimen.repeats)
    reasons = [*(assembly.reasons if files.facts or not files.refusals else ()), *files.refusals]
    if assembly.is_complete:
        try:
            return Verdict(measured=assembly.protocols, exam=read_exam(assembly))
        except UnsuitableInput as refusal:
            reasons = [refusal.reason]
    text = "; ".join(dict.fromkeys(one.detail for one in reasons))
    return Verdict(codes=frozenset(str(one.code) for one in reasons), text=text)


# --- the cages --------------------------------------------------------------------------------------------------------

GE, ONE_ECHO_TIME, FSE = ("ge-mapss",), ("ge-mapss-one-echo-time",), ("ge-t1rho-fse",)
ANATOMY, PHILIPS, SIEMENS = ("t2-fse",), ("philips-mapss-t1rho", "philips-mapss-t2"), ("siemens-mapss",)


def good(name: str, build: Build, measured: tuple[str, ...], *, has_truth: bool = True, **more: object) -> Specimen:
    return Specimen(name, "good", build, measured=measured, has_truth=has_truth, **more)  # type: ignore[arg-type]


def odd(name: str, build: Build, *codes: str, says: str = "", **more: object) -> Specimen:
    return Specimen(name, "odd", build, codes=frozenset(codes), says=says, **more)  # type: ignore[arg-type]


def broken(name: str, build: Build, *codes: str, says: str = "") -> Specimen:
    return Specimen(name, "broken", build, codes=frozenset(codes), says=says)


def one_echo_time_cards() -> tuple[ProtocolCard, ...]:
    """With the example card of the GE flavour, for just the slices of the zoo, as a site would write it."""
    path = Path(protocol_cards.__file__).parent / "protocols" / "examples" / "ge-mapss-one-echo-time.yaml"
    card = ProtocolCard.model_validate(yaml.safe_load(path.read_text()))
    exact = card.expected.model_copy(update={"min_slices": N_SLICES, "max_slices": N_SLICES})
    others = tuple(one for one in load_cards() if one.name not in card.replaces)
    return (*others, card.model_copy(update={"expected": exact}))


def overlapping_cards() -> tuple[ProtocolCard, ...]:
    """With a site's card that fits what a built-in card fits."""
    card = next(one for one in load_cards() if one.name == "ge-mapss")
    return (*load_cards(), card.model_copy(update={"name": "site-mapss"}))


LOCALISER = made(
    setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SeriesDescription="3PL LOC", SeriesInstanceUID="1.2.826.9"),
    each(new_uid),
)
PHILIPS_ENHANCED, SIEMENS_ENHANCED = {"vendor": "philips", "enhanced": True}, {"vendor": "siemens", "enhanced": True}


def left_handed(image: FileDataset) -> None:
    """Columns from the other end: the normal points the other way."""
    along = np.array([float(value) for value in image.ImageOrientationPatient[:3]])
    first = np.array([float(value) for value in image.ImagePositionPatient])
    last = first + along * float(image.PixelSpacing[1]) * (image.Columns - 1)
    image.ImagePositionPatient = [f"{value:.6f}" for value in last]
    image.ImageOrientationPatient = [*(f"{-value:.6f}" for value in along), *image.ImageOrientationPatient[3:]]
    image.PixelData = np.ascontiguousarray(image.pixel_array[:, ::-1]).tobytes()


def jittered(images: Images) -> None:
    """Positions rounded otherwise at each time, by less than 0.05 mm."""
    for number, image in enumerate(images):
        shifted([image], 0.02 * (number % 3), 1)


def moved_at_one_time(images: Images) -> None:
    shifted([image for image in images if echo(image) == 40.0], 0.5, 2)


def two_acquisitions(images: Images) -> Images:
    """A scan and its repeat in one series."""
    again = [copy_of(image) for image in images]
    for image in again:
        new_uid(image)
        image.PixelData = bytes(reversed(image.PixelData))
    setting(AcquisitionNumber=1, ImagesInAcquisition=None)(images)
    setting(AcquisitionNumber=2, ImagesInAcquisition=None)(again)
    return [*images, *again]


def halves_of(change_second: Callable[[Images], object], change_both: Callable[[FileDataset], object]) -> Build:
    """Studies for each time, of which the second half of the times comes from another exam."""

    def build(folder: Path) -> None:
        first = [image for image in scan() if echo(image) <= 25.7]
        second = [image for image in scan(phantom(visit=2)) if echo(image) > 25.7]
        setting(StudyDate=first[0].StudyDate)(second)
        for image in [*first, *second]:
            study_for_each_time(image)
            change_both(image)
        change_second(second)
        save(folder, [*first, *second])

    return build


def nameless(image: FileDataset) -> None:
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "IssuerOfPatientID"):
        if keyword in image:
            setattr(image, keyword, "")


def combined_philips(images: Images) -> Images:
    """T1rho and T2 in one scan: the two scans under one series, the T2 image without preparation left out."""
    kept = [image for image in images if "TSL" in image.SeriesDescription or float(image.TriggerTime) > 0]
    setting(
        SeriesDescription="MAPSS TSL 0_10_40_80 TE 0_12.8_25.7_51.4 ms", SeriesInstanceUID="1.2.826.3", SeriesNumber=301
    )(kept)
    return kept


def described(texts: dict[str, str]) -> Callable[[Images], None]:
    def change(images: Images) -> None:
        for image in images:
            for before, after in texts.items():
                image.SeriesDescription = str(image.SeriesDescription).replace(before, after)

    return change


def two_studies_of_philips(images: Images) -> None:
    t2_scan(setting(StudyInstanceUID="1.2.826.4"))(images)


GOOD = [
    good("GE: one series, seven times", made(), GE),
    good("GE: with localiser and FSE", beside(made(anatomy=True), LOCALISER), GE),
    good("GE: no announced count", made(setting(ImagesInAcquisition=None)), GE),
    good("GE: a study and a series for each spin-lock time", made(each(study_for_each_time)), GE),
    good("GE: times as GE writes them (12.847, 25.695, 51.39)", made(each(real_mapss_times)), GE),
    good("GE: InstanceNumber counts backwards", made(reversed_numbers), GE),
    good("GE: no EchoNumbers, no SliceThickness", made(setting(EchoNumbers=None, SliceThickness=None)), GE),
    good("GE: wrong SliceThickness and spacing", made(setting(SliceThickness=9, SpacingBetweenSlices=7)), GE),
    good("GE: oblique by 20 degrees", made(exam=phantom(oblique_deg=20.0)), GE, has_truth=False),
    good("GE: rows from foot to head", made(each(upside_down)), GE, flip=True),
    good("GE: one slice of T1rho FSE", made(exam=phantom("t1rho-fse", 1)), FSE, has_truth=False),
    good(
        "GE: one EchoTime for all, a card names the order",
        made(one_echo_time=True),
        ONE_ECHO_TIME,
        cards=one_echo_time_cards,
    ),
    good("GE: every file twice", beside(made(), made()), GE),
    good(
        "GE: an aborted scan beside the whole one",
        made(lambda images: [*images, *copies("again")(images)[28:37]], setting(ImagesInAcquisition=None)),
        GE,
    ),
    good(
        "GE: a map of the scanner beside the images",
        made(copies("map", ImageType=["DERIVED", "SECONDARY", "T1RHO MAP"])),
        GE,
    ),
    good("GE: phase images as a series beside", made(phases_beside), GE),
    good("GE: real and imaginary parts in the same series", made(complex_parts), GE),
    good("GE: signed values and an intercept", made(each(signed)), GE),
    good("GE: RLE", made(compressed(RLELossless)), GE),
    good("GE: JPEG-LS lossless", made(compressed(JPEGLSLossless)), GE),
    good("GE: JPEG 2000 lossless", made(compressed(JPEG2000Lossless)), GE),
    good("GE: deflated", encoded(DeflatedExplicitVRLittleEndian), GE),
    good("GE: implicit VR", encoded(ImplicitVRLittleEndian), GE),
    good("GE: big endian", encoded(ExplicitVRBigEndian), GE),
    good(
        "GE: scanned twice, the site takes the first", made(copies("again", SeriesNumber=9)), GE, repeats=Repeats.FIRST
    ),
    good(
        "GE: scanned twice, the site takes the latest",
        made(copies("again", SeriesNumber=9)),
        GE,
        repeats=Repeats.LATEST,
    ),
    good("GE: a broken file and a report beside", beside(made(), files_of("MR_truncated.dcm", "test-SR.dcm")), GE),
    good("Philips: two scans, each image with its scale", made(vendor="philips"), PHILIPS),
    good("Philips: phase images in each series", made(vendor="philips", phase_images=True), PHILIPS),
    good("Philips: Enhanced", made(**PHILIPS_ENHANCED), PHILIPS),
    good("Philips: Enhanced, RLE", made(compressed(RLELossless), **PHILIPS_ENHANCED), PHILIPS),
    good("GE: an overlay in unused bits", made(each(overlay_bits)), GE),
    good("GE: a Modality LUT", made(each(modality_lut)), GE),
    good("GE: a DICOMDIR beside", beside(made(), raw_files(DICOMDIR=bytes(128) + b"DICM")), GE),
    good("GE: Enhanced, an object for each time", made(each(as_ge_enhanced), **SIEMENS_ENHANCED), GE),
    good("Philips: Enhanced, each object in two parts", made(concatenated, **PHILIPS_ENHANCED), PHILIPS),
    good("GE: columns from the other end", made(each(left_handed)), GE, flip=True),
    good("GE: positions rounded otherwise at each time", made(jittered), GE),
    good("GE: anonymised without any PatientID", made(each(nameless)), GE),
    good("GE: fewer images announced than came", made(setting(ImagesInAcquisition=5)), GE),
    good("Philips: both lists in one scan", made(combined_philips, vendor="philips"), ("philips-mapss",)),
    good(
        "Philips: 3DMAPPS, SL 0_10_40_80ms",
        made(described({"MAPSS TSL 0_10_40_80 ms": "WIP 3DMAPPS SL 0_10_40_80ms"}), vendor="philips"),
        PHILIPS,
    ),
    good("Philips: each scan a study of its own", made(two_studies_of_philips, vendor="philips"), PHILIPS),
    good("Siemens: T1rho_TSL40ms", made(described({"MAPSS TSL ": "T1rho_TSL"}), vendor="siemens"), SIEMENS),
    good("Siemens: a series for each time", made(vendor="siemens"), SIEMENS),
    good("Siemens: XA, Enhanced", made(**SIEMENS_ENHANCED), SIEMENS),
    good("Siemens: XA, Enhanced, JPEG-LS", made(compressed(JPEGLSLossless), **SIEMENS_ENHANCED), SIEMENS),
    good("Anatomy alone", made(only(lambda image: image.SeriesNumber == 2), anatomy=True), ANATOMY, has_truth=False),
]

ODD = [
    odd(
        "GE: one image missing",
        made(one_of(40.0)),
        "SERIES_INCOMPLETE",
        says="27/28 images: missing TSL 40 ms at slice",
    ),
    odd(
        "GE: one time missing",
        made(without(lambda one: echo(one) == 25.7)),
        "SERIES_INCOMPLETE",
        says="TE 25.7 ms at all",
    ),
    odd(
        "GE: a slice missing in the middle", made(keep_slices(0, 2, 3)), "SERIES_INCOMPLETE", says="all times at slice"
    ),
    odd(
        "GE: an outer slice missing, count announced", made(keep_slices(0, 1, 2)), "SERIES_INCOMPLETE", says="announced"
    ),
    odd("GE: two slices", made(exam=phantom(n_slices=2)), "SERIES_INCOMPLETE", says="at least 3"),
    odd("GE: one EchoTime for all", made(one_echo_time=True), "ECHO_UNRESOLVED", says="in all 28 images"),
    odd(
        "GE: one EchoTime, a card, and one image missing",
        made(lambda images: images[1:], one_echo_time=True),
        "SERIES_INCOMPLETE",
        cards=one_echo_time_cards,
    ),
    odd("GE: other spin-lock times (0/10/30/60)", made(each(other_times)), "ECHO_UNRESOLVED", says="30"),
    odd("GE: an image without EchoTime", made(one(3, EchoTime=None)), "ECHO_UNRESOLVED"),
    odd("GE: slopes differ between images", made(other_slopes), "SCALING_UNKNOWN"),
    odd("GE: lossy compressed once", made(setting(LossyImageCompression="01")), "PROTOCOL_DEVIATION", says="lossy"),
    odd("GE: two patients in one study", made(copies("other", PatientID="OTHER")), "IDENTITY_CONFLICT"),
    odd("GE: two exams of one day", made(second_study()), "PROTOCOL_DEVIATION"),
    odd("GE: two exams of two days", made(second_study(StudyDate="20300101")), "IDENTITY_CONFLICT"),
    odd("GE: scanned twice", made(copies("again", SeriesNumber=9)), "PROTOCOL_DEVIATION", says="whole"),
    odd("GE: one UID with two contents", made(two_contents), "INSTANCE_CONFLICT"),
    odd("GE: one image under two UIDs", made(two_uids), "INSTANCE_CONFLICT"),
    odd("GE: two images for one slice and time", made(same_cell), "PROTOCOL_DEVIATION"),
    odd("GE: a scan and its repeat in one series", made(two_acquisitions), "PROTOCOL_DEVIATION"),
    odd("GE: one time lies 0.5 mm off", made(moved_at_one_time), "GEOMETRY_INCONSISTENT"),
    odd("GE: one image of another matrix", made(smaller_matrix), "GEOMETRY_INCONSISTENT", says="matrix"),
    odd("GE: eight times, one of them unknown", made(eighth_time), "ECHO_UNRESOLVED", says="60"),
    odd(
        "GE: studies for each time, of two patients",
        halves_of(setting(PatientID="OTHER"), lambda image: None),
        "IDENTITY_CONFLICT",
    ),
    odd(
        "GE: studies for each time, of two days",
        halves_of(setting(StudyDate="20300101"), lambda image: None),
        "IDENTITY_CONFLICT",
    ),
    odd(
        "GE: studies for each time, of two nameless patients",
        halves_of(lambda images: None, nameless),
        "GEOMETRY_INCONSISTENT",
    ),
    odd(
        "GE: half of the patient's identity removed",
        made(lambda images: setting(PatientBirthDate="")(images[:9])),
        "IDENTITY_CONFLICT",
    ),
    odd("GE: RescaleSlope 0", made(setting(RescaleSlope=0, RescaleIntercept=0)), "SCALING_UNKNOWN"),
    odd("GE: inverted grey scale", made(setting(PhotometricInterpretation="MONOCHROME1")), "UNSUPPORTED_OBJECT"),
    odd("GE: scanned again after the patient had moved", made(repositioned), "PROTOCOL_DEVIATION"),
    odd("Philips: two dynamics of each image", made(two_dynamics, vendor="philips"), "PROTOCOL_DEVIATION"),
    odd(
        "Philips: Enhanced, the second parts have not come",
        made(without_second_parts, **PHILIPS_ENHANCED),
        "SERIES_INCOMPLETE",
    ),
    odd("GE: axial", made(turned), "GEOMETRY_INCONSISTENT", says="sagittal"),
    odd("GE: a slice out of place by 1 mm", made(one_slice_shifted(1.0)), "GEOMETRY_INCONSISTENT"),
    odd(
        "GE: an image turned against the others",
        made(one(0, ImageOrientationPatient=[0, 0.9848, 0.1736, 0, 0.1736, -0.9848])),
        "GEOMETRY_INCONSISTENT",
        says="orientation",
    ),
    odd(
        "GE: pixel spacing differs",
        made(one(0, PixelSpacing=[1.0, 1.0])),
        "GEOMETRY_INCONSISTENT",
        says="pixel spacing",
    ),
    odd("GE: an image without position", made(one(0, ImagePositionPatient=None)), "GEOMETRY_INCONSISTENT"),
    odd("GE: no frame of reference", made(setting(FrameOfReferenceUID=None)), "GEOMETRY_INCONSISTENT"),
    odd("GE: two frames of reference", made(one(0, FrameOfReferenceUID="1.2.826.5")), "GEOMETRY_INCONSISTENT"),
    odd(
        "GE: a protocol that no card knows",
        made(setting(SeriesDescription="SPINE T1R")),
        "PROTOCOL_UNKNOWN",
        says="nearest",
    ),
    odd("GE: a protocol that two cards know", made(), "PROTOCOL_UNKNOWN", says="several", cards=overlapping_cards),
    odd("GE: phase images only", made(setting(ImageType=["ORIGINAL", "PRIMARY", "PHASE"])), "PROTOCOL_UNKNOWN"),
    odd("GE: localiser only", LOCALISER, "PROTOCOL_UNKNOWN"),
    odd("GE: two slices of the single-slice T1rho FSE", made(exam=phantom("t1rho-fse", 2)), "PROTOCOL_DEVIATION"),
    odd(
        "Philips: the T2 scan has not come",
        made(t1rho_only, vendor="philips"),
        "SERIES_INCOMPLETE",
        says="philips-mapss-t2",
    ),
    odd("Philips: without scale slopes", made(each(no_scale_slope), vendor="philips"), "SCALING_UNKNOWN", says="2005"),
    odd("Philips: TriggerTime tells other times", made(each(other_triggers), vendor="philips"), "ECHO_UNRESOLVED"),
    odd("Philips: no TriggerTime", made(setting(TriggerTime=None), vendor="philips"), "ECHO_UNRESOLVED"),
    odd("Philips: the description lists other times", made(relabelled, vendor="philips"), "ECHO_UNRESOLVED"),
    odd(
        "Philips: the T2 scan lies elsewhere",
        made(t2_scan(lambda images: shifted(images, 2.0, 2)), vendor="philips"),
        "GEOMETRY_INCONSISTENT",
    ),
    odd(
        "Philips: the T2 scan is of another patient",
        made(t2_scan(setting(PatientID="OTHER")), vendor="philips"),
        "IDENTITY_CONFLICT",
    ),
    odd("Philips: Enhanced, one frame less", made(each(last_frame_off), **PHILIPS_ENHANCED), "SERIES_INCOMPLETE"),
    odd(
        "Siemens: one series missing",
        made(without(lambda one: "TSL 40" in one.SeriesDescription), vendor="siemens"),
        "SERIES_INCOMPLETE",
        says="TSL 40 ms",
    ),
    odd("Siemens: one time scanned twice", made(repeated_time, vendor="siemens"), "PROTOCOL_DEVIATION"),
    odd(
        "Siemens: no time in the descriptions",
        made(setting(SeriesDescription="MAPSS", ProtocolName="MAPSS"), vendor="siemens"),
        "PROTOCOL_UNKNOWN",
    ),
    odd("Real: Siemens XA Enhanced MR", real("dcm_qa_enh/6_1.dcm"), "PROTOCOL_UNKNOWN"),
    odd("Real: GE 3D B0 map", real("dcm_qa_fmap/3_3db0maps_i100380.MRDC.132"), "PROTOCOL_UNKNOWN"),
    odd("Real: Philips field map, magnitude and phase", real(*PHILIPS_REAL), "PROTOCOL_UNKNOWN"),
]

BROKEN = [
    broken(
        "one file cut short", content(lambda whole: whole[:-300]), "SERIES_INCOMPLETE", "UNREADABLE", says="cut short"
    ),
    broken("one file cut in its header", content(lambda whole: whole[:700]), "SERIES_INCOMPLETE", "UNREADABLE"),
    broken("one file empty", content(lambda whole: b""), "SERIES_INCOMPLETE", "UNREADABLE"),
    broken("one file without preamble", content(lambda whole: whole[132:]), "SERIES_INCOMPLETE", "UNREADABLE"),
    broken("sequences nested 1,500 deep", content(nested_deeply), "SERIES_INCOMPLETE", "UNREADABLE"),
    broken("EchoTime that is no number", made(raw_value(0, "EchoTime", b"ten ")), "SERIES_INCOMPLETE", "UNREADABLE"),
    broken(
        "a position that is infinite",
        made(raw_value(0, "ImagePositionPatient", b"1e999\\0\\0 ")),
        "SERIES_INCOMPLETE",
        "UNREADABLE",
    ),
    broken("no StudyInstanceUID", made(one(0, StudyInstanceUID=None)), "SERIES_INCOMPLETE", "UNREADABLE"),
    broken("fewer pixels than Rows x Columns", made(one(0, Rows=64)), "SERIES_INCOMPLETE", "UNREADABLE"),
    broken("12 bits allocated", made(one(0, BitsAllocated=12)), "SERIES_INCOMPLETE", "UNSUPPORTED_OBJECT"),
    broken("compressed pixels are noise", made(compressed(JPEG2000Lossless), noise_in_pixels), "UNREADABLE"),
    broken("RLE pixels cut short", made(compressed(RLELossless), half_of_pixels), "UNREADABLE"),
    broken("an unknown transfer syntax", made(private_syntax), "UNSUPPORTED_OBJECT"),
    broken("pixels in another syntax than named", content(named_rle), "SERIES_INCOMPLETE", "UNREADABLE"),
    broken(
        "Enhanced without functional groups",
        made(setting(PerFrameFunctionalGroupsSequence=None), **SIEMENS_ENHANCED),
        "UNREADABLE",
    ),
    broken("Enhanced with more frames than it says", made(each(one_frame_more), **SIEMENS_ENHANCED), "UNREADABLE"),
    broken(
        "a folder of other files",
        raw_files(readme=b"hello", zeros=bytes(4000), dicomdir=b"\0" * 128 + b"DICM"),
        "UNREADABLE",
    ),
    broken("an empty folder", raw_files(), "SERIES_INCOMPLETE"),
    broken("pydicom's truncated MR", files_of("MR_truncated.dcm"), "UNREADABLE"),
    broken("pydicom's file without meta header", files_of("no_meta.dcm"), "UNREADABLE"),
    broken("pydicom's file with a wrong VR", files_of("badVR.dcm"), "UNSUPPORTED_OBJECT"),
    broken("a CT image", files_of("CT_small.dcm"), "UNSUPPORTED_OBJECT"),
    broken("colour secondary captures", files_of("SC_rgb_rle.dcm", "SC_rgb_jpeg_gdcm.dcm"), "UNSUPPORTED_OBJECT"),
    broken(
        "RT plan, dose, report, waveform",
        files_of("rtplan.dcm", "rtdose_1frame.dcm", "test-SR.dcm", "waveform_ecg.dcm"),
        "UNSUPPORTED_OBJECT",
    ),
    broken("an MR image of a protocol that no card knows", files_of("MR_small.dcm"), "PROTOCOL_UNKNOWN"),
]

ZOO = [*GOOD, *ODD, *BROKEN]
