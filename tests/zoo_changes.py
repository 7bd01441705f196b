"""Ways in which exams of the zoo differ from what a scanner usually sends."""

from collections.abc import Callable

import numpy as np
import pydicom
from pydicom.dataset import FileDataset
from zoo_material import (
    Images,
    copies,
    copy_of,
    echo,
    new_uid,
    slice_of,
)


def study_for_each_time(image: FileDataset) -> None:
    """As an anonymiser leaves it: Study and Series UID of each spin-lock time are its own."""
    image.StudyInstanceUID = f"1.2.826.1.{echo(image) * 10:.0f}"
    image.SeriesInstanceUID = f"1.2.826.2.{echo(image) * 10:.0f}"
    del image.ImagesInAcquisition


def real_mapss_times(image: FileDataset) -> None:
    image.EchoTime = {12.8: 12.847, 25.7: 25.695, 51.4: 51.39}.get(echo(image), echo(image))


def other_times(image: FileDataset) -> None:
    image.EchoTime = {40.0: 30.0, 80.0: 60.0}.get(echo(image), echo(image))


def reversed_numbers(images: Images) -> None:
    for number, image in enumerate(reversed(images), start=1):
        image.InstanceNumber = number


def upside_down(image: FileDataset) -> None:
    """Rows written from the other end: position and orientation say so, and the volume is the same."""
    down = np.array([float(value) for value in image.ImageOrientationPatient[3:]])
    first = np.array([float(value) for value in image.ImagePositionPatient])
    last = first + down * float(image.PixelSpacing[0]) * (image.Rows - 1)
    image.ImagePositionPatient = [f"{value:.6f}" for value in last]
    image.ImageOrientationPatient = [*image.ImageOrientationPatient[:3], *(f"{-value:.6f}" for value in down)]
    image.PixelData = np.ascontiguousarray(image.pixel_array[::-1]).tobytes()


def complex_parts(images: Images) -> Images:
    """Real and imaginary parts beside the magnitude, told apart by GE's (0043,102F) only."""
    parts = []
    for part in (0, 2, 3):
        for image in map(copy_of, images):
            if part:
                new_uid(image)
            image.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", part)
            image.ImagesInAcquisition = 3 * len(images)
            parts.append(image)
    return parts


def phases_beside(images: Images) -> Images:
    return [*images, *copies("phase", ImageType=["ORIGINAL", "PRIMARY", "PHASE"])(images)[len(images) :]]


def second_study(**values: object) -> Callable[[Images], Images]:
    return copies("study", StudyInstanceUID="1.2.826.77", **values)


def shifted(images: Images, millimetres: float, axis: int = 0) -> None:
    for image in images:
        position = [float(value) for value in image.ImagePositionPatient]
        position[axis] += millimetres
        image.ImagePositionPatient = [f"{value:.6f}" for value in position]


def one_slice_shifted(millimetres: float) -> Callable[[Images], None]:
    return lambda images: shifted([image for image in images if slice_of(images, 1)(image)], millimetres)


def turned(images: Images) -> None:
    """Axial slices."""
    depth = {place: number for number, place in enumerate(sorted({str(one.ImagePositionPatient) for one in images}))}
    for image in images:
        image.ImagePositionPatient = [-100, -100, 4 * depth[str(image.ImagePositionPatient)]]
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]


def other_slopes(images: Images) -> None:
    for number, image in enumerate(images):
        image.RescaleSlope, image.RescaleIntercept = 1 + number % 7, 0


def t2_scan(change: Callable[[Images], object]) -> Callable[[Images], None]:
    return lambda images: (change([image for image in images if "TE" in image.SeriesDescription]), None)[1]


def same_cell(images: Images) -> Images:
    """A second, different image for one slice and time."""
    again = copy_of(images[0])
    new_uid(again)
    again.PixelData = bytes(reversed(again.PixelData))
    return [*images, again]


def two_uids(images: Images) -> Images:
    again = copy_of(images[0])
    new_uid(again)
    return [*images, again]


def two_contents(images: Images) -> Images:
    again = copy_of(images[0])
    again.PixelData = bytes(reversed(again.PixelData))
    return [*images, again]


def one_of(time_ms: float, index: int = 0) -> Callable[[Images], Images]:
    """Without one image of a time."""
    return lambda images: [image for image in images if image is not [x for x in images if echo(x) == time_ms][index]]


def keep_slices(*numbers: int) -> Callable[[Images], Images]:
    return lambda images: [image for image in images if any(slice_of(images, number)(image) for number in numbers)]


def t1rho_only(images: Images) -> Images:
    return [image for image in images if "TSL" in image.SeriesDescription]


def smaller_matrix(images: Images) -> None:
    pixels = images[0].pixel_array[:16, :16]
    images[0].Rows = images[0].Columns = 16
    images[0].PixelData = np.ascontiguousarray(pixels).tobytes()


def eighth_time(images: Images) -> Images:
    again = [copy_of(image) for image in images if echo(image) == 80.0]
    for image in again:
        new_uid(image)
        image.EchoTime = 60.0
    return [*images, *again]


def no_scale_slope(image: FileDataset) -> None:
    """As an anonymiser leaves it that removes private elements."""
    image.remove_private_tags()


def other_triggers(image: FileDataset) -> None:
    image.TriggerTime = float(image.TriggerTime) * 1.3 + 5


def relabelled(images: Images) -> None:
    for image in images:
        image.SeriesDescription = str(image.SeriesDescription).replace("0_10_40_80", "0_10_30_60")


def last_frame_off(image: FileDataset) -> None:
    frames = image.PerFrameFunctionalGroupsSequence
    length = len(image.PixelData) // len(frames)
    image.PerFrameFunctionalGroupsSequence = frames[:-1]
    image.NumberOfFrames = len(frames) - 1
    image.PixelData = image.PixelData[: length * (len(frames) - 1)]


def one_frame_more(image: FileDataset) -> None:
    image.NumberOfFrames = int(image.NumberOfFrames) + 1


def repeated_time(images: Images) -> Images:
    again = copies("again", SeriesNumber=99)(t1rho_only(images))
    return [*images, *(image for image in again if image.SeriesNumber == 99 and "TSL 10" in image.SeriesDescription)]


def raw_value(index: int, keyword: str, value: bytes) -> Callable[[Images], None]:
    """Bytes that pydicom would not write of itself."""

    def change(images: Images) -> None:
        tag = pydicom.datadict.tag_for_keyword(keyword)
        assert tag is not None
        images[index][tag] = pydicom.dataelem.RawDataElement(
            pydicom.tag.Tag(tag), "DS", len(value), value, 0, False, True
        )

    return change


def noise_in_pixels(images: Images) -> None:
    noise = np.random.default_rng(1).bytes(600)
    images[0].PixelData = pydicom.encaps.encapsulate([noise])


def half_of_pixels(images: Images) -> None:
    (frame,) = pydicom.encaps.generate_frames(images[0].PixelData, number_of_frames=1)
    images[0].PixelData = pydicom.encaps.encapsulate([frame[: len(frame) // 2]])


def private_syntax(images: Images) -> None:
    for image in images:
        image.PixelData = pydicom.encaps.encapsulate([b"\x01\x02" * 40])
        image["PixelData"].is_undefined_length = True
        image.file_meta.TransferSyntaxUID = "1.2.826.0.1.3680043.99.1"


def named_rle(whole: bytes) -> bytes:
    """Uncompressed pixels under the name of a compressed syntax."""
    return whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0", 1)


PHILIPS_REAL = (
    "dcm_qa_philips_enh/cl_2001_0001.dcm",
    "dcm_qa_philips_enh/cl_2001_0002_e2.dcm",
    "dcm_qa_philips_enh/cl_2001_0107_ph.dcm",
)


def nested_deeply(whole: bytes) -> bytes:
    """With sequences of undefined length in one another, 1,500 deep, behind the pixels."""
    begins = bytes.fromhex("fcff0000") + b"SQ\0\0" + b"\xff" * 4 + bytes.fromhex("feff00e0") + b"\xff" * 4
    ends = bytes.fromhex("feff0de0") + bytes(4) + bytes.fromhex("feffdde0") + bytes(4)
    return whole + begins * 1500 + ends * 1500


def overlay_bits(image: FileDataset) -> None:
    """12 bits stored, and an old overlay plane in the bits above."""
    values = image.pixel_array // 16
    image.BitsStored, image.HighBit = 12, 11
    image.PixelData = (values | 0x8000).astype("<u2").tobytes()


def modality_lut(image: FileDataset) -> None:
    """Stored roots of the signal, and a table that squares them."""
    image.PixelData = np.round(np.sqrt(image.pixel_array) * 16).astype("<u2").tobytes()
    item = pydicom.Dataset()
    item.LUTDescriptor = [4096, 0, 16]
    item.ModalityLUTType = "US"
    item.LUTData = [round((index / 16) ** 2) for index in range(4096)]
    item["LUTDescriptor"].VR = "US"
    item["LUTData"].VR = "US"
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        if keyword in image:
            delattr(image, keyword)
    image.ModalityLUTSequence = [item]


def as_ge_enhanced(image: FileDataset) -> None:
    """Enhanced MR of GE: each frame's spin-lock or preparation time as its EffectiveEchoTime."""
    time_ms = float(str(image.SeriesDescription).split()[-1])
    image.Manufacturer, image.ManufacturerModelName = "GE MEDICAL SYSTEMS", "SIGNA Premier"
    image.SeriesDescription = image.ProtocolName = "MAPSS T1rho T2"
    for holder in [*image.SharedFunctionalGroupsSequence, *image.PerFrameFunctionalGroupsSequence]:
        if "MREchoSequence" in holder:
            holder.MREchoSequence[0].EffectiveEchoTime = time_ms


def concatenated(images: Images) -> Images:
    """Each Enhanced object in two parts, as a sender splits it that must not send large objects."""
    parts = []
    for image in images:
        frames, pixels = list(image.PerFrameFunctionalGroupsSequence), image.PixelData
        length, half = len(pixels) // len(frames), len(frames) // 2 + 1
        for number, (begin, end) in enumerate(((0, half), (half, len(frames))), start=1):
            part = copy_of(image)
            new_uid(part)
            part.ConcatenationUID, part.SOPInstanceUIDOfConcatenationSource = "1.2.826.6", image.SOPInstanceUID
            part.InConcatenationNumber, part.InConcatenationTotalNumber = number, 2
            part.ConcatenationFrameOffsetNumber, part.NumberOfFrames = begin, end - begin
            part.PerFrameFunctionalGroupsSequence = frames[begin:end]
            part.PixelData = pixels[begin * length : end * length]
            parts.append(part)
    return parts


def repositioned(images: Images) -> Images:
    again = copies("again", SeriesNumber=9, FrameOfReferenceUID="1.2.826.5")(images)
    shifted(again[len(images) :], 3.0, 1)
    return again


def without_second_parts(images: Images) -> Images:
    return [image for image in concatenated(images) if image.InConcatenationNumber == 1]


def two_dynamics(images: Images) -> Images:
    """Each image twice in its series, as a second dynamic with other pixels."""
    again = [copy_of(image) for image in images]
    for image in again:
        new_uid(image)
        image.TemporalPositionIdentifier = 2
        image.PixelData = bytes(reversed(image.PixelData))
    return [*images, *again]
