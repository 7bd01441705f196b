"""References to sources that highdicom's writers do not take as they are: frames, and images of several studies.

highdicom takes either many classic images or one whole multi-frame object; an exam may be some frames of several. So
each frame gets a UID of its own for as long as an object is being made, and at the end every reference to it becomes
one to its SOP instance, with the number of the frame where the standard asks for it.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, MRImageStorage

from dicom_io.sources import SourceExam, frame_number_of
from dicom_io.uids import derived_uid

#: Sequences of the Image SOP Instance Reference Macro (PS3.3 10.3), which names frames.
_NAMES_FRAMES = ("SourceImageSequence", "ReferencedImageSequence")
#: Sequences of the SOP Instance Reference Macro (PS3.3 10.8), each instance once.
_NAMES_INSTANCES = ("ReferencedInstanceSequence", "ReferencedSOPSequence")


@dataclass(frozen=True, slots=True)
class _Frame:
    sop_class_uid: UID
    sop_instance_uid: UID
    number: int


def single_image_uids(instance: Dataset) -> tuple[UID, UID]:
    """SOP class and instance under which highdicom shall know an image: its own, or those that stand for a frame."""
    number = frame_number_of(instance)
    if number is None:
        return instance.SOPClassUID, instance.SOPInstanceUID
    return MRImageStorage, derived_uid("frame", str(instance.SOPInstanceUID), str(number))


def name_frames(dataset: Dataset, source: SourceExam) -> None:
    """Turn each reference to a stand-in into one to the frame's SOP instance. Changes ``dataset``."""
    frames = {
        single_image_uids(one)[1]: _Frame(one.SOPClassUID, one.SOPInstanceUID, number)
        for one in (*source.grid_instances, *source.all_instances)
        if (number := frame_number_of(one)) is not None
    }
    if frames:
        _name_in(dataset, frames)


def name_source_images(dataset: Dataset, instances: Iterable[Dataset]) -> None:
    """Name images as sources beside those that are named already, each once (PS3.3 C.7.6.1, C.12.2).

    In Source Image Sequence, with frame numbers, and as instances in the references by series, or by study and series
    where they belong to another study than ``dataset``. Changes ``dataset``.
    """
    images = list(instances)
    if not images:
        return
    named = {str(item.ReferencedSOPInstanceUID): item for item in image_references(images)}
    kept = [item for item in dataset.get("SourceImageSequence", ()) if str(item.ReferencedSOPInstanceUID) not in named]
    dataset.SourceImageSequence = [*kept, *named.values()]
    series = {str(item.SeriesInstanceUID): item for item in dataset.get("ReferencedSeriesSequence", ())}
    for uid, item in _by_series(one for one in images if one.StudyInstanceUID == dataset.StudyInstanceUID).items():
        before = list(series[uid].ReferencedInstanceSequence) if uid in series else []
        known = {str(one.ReferencedSOPInstanceUID) for one in before}
        added = [one for one in item.ReferencedInstanceSequence if str(one.ReferencedSOPInstanceUID) not in known]
        item.ReferencedInstanceSequence = [*before, *added]
        series[uid] = item
    dataset.ReferencedSeriesSequence = list(series.values())
    if others := _studies(one for one in images if one.StudyInstanceUID != dataset.StudyInstanceUID):
        dataset.StudiesContainingOtherReferencedInstancesSequence = others


def image_references(instances: Iterable[Dataset]) -> Sequence:
    """One reference for each SOP instance, naming its frames where it has many (PS3.3 10.3)."""
    items: dict[str, Dataset] = {}
    for instance in instances:
        item = items.setdefault(str(instance.SOPInstanceUID), Dataset())
        item.ReferencedSOPClassUID = instance.SOPClassUID
        item.ReferencedSOPInstanceUID = instance.SOPInstanceUID
        number = frame_number_of(instance)
        if number is not None:
            item.ReferencedFrameNumber = [*_as_list(item.get("ReferencedFrameNumber")), number]
    return Sequence(items.values())


def _studies(images: Iterable[Dataset]) -> Sequence:
    """References to images by study and series.

    An exam may be spread over studies, as where an anonymiser gave each spin-lock time a study of its own.
    """
    of_study: dict[UID, list[Dataset]] = {}
    for one in images:
        of_study.setdefault(one.StudyInstanceUID, []).append(one)
    items = []
    for uid, instances in of_study.items():
        item = Dataset()
        item.StudyInstanceUID = uid
        item.ReferencedSeriesSequence = list(_by_series(instances).values())
        items.append(item)
    return Sequence(items)


def _by_series(images: Iterable[Dataset]) -> dict[str, Dataset]:
    """One item for each series, with its instances as wholes."""
    of_series: dict[str, list[Dataset]] = {}
    for one in images:
        of_series.setdefault(str(one.SeriesInstanceUID), []).append(one)
    items = {}
    for uid, instances in of_series.items():
        item = items[uid] = Dataset()
        item.SeriesInstanceUID = uid
        item.ReferencedInstanceSequence = image_references(instances)
        for reference in item.ReferencedInstanceSequence:
            if "ReferencedFrameNumber" in reference:
                del reference.ReferencedFrameNumber
    return items


def _as_list(value: object) -> list[object]:
    if value is None:
        return []
    return list(value) if isinstance(value, Iterable) else [value]


def _name_in(dataset: Dataset, frames: dict[UID, _Frame]) -> None:
    for element in dataset:
        if element.VR != "SQ":
            continue
        # highdicom puts one and the same item into several sequences, hence copies
        before = list(element.value)
        of_frame = element.keyword in _NAMES_FRAMES or dataset.get("ValueType") == "IMAGE"  # PS3.3 C.18.4
        items = [_named(item, frames, of_frame) for item in before]
        for item in items:
            _name_in(item, frames)
        if element.keyword in _NAMES_INSTANCES:
            items = list({str(item.ReferencedSOPInstanceUID): item for item in items}.values())
        if [id(item) for item in items] != [id(item) for item in before]:
            element.value = Sequence(items)


def _named(item: Dataset, frames: dict[UID, _Frame], with_number: bool) -> Dataset:
    frame = frames.get(item.get("ReferencedSOPInstanceUID"))
    if frame is None:
        return item
    named = copy.deepcopy(item)
    named.ReferencedSOPClassUID, named.ReferencedSOPInstanceUID = frame.sop_class_uid, frame.sop_instance_uid
    if with_number:
        named.ReferencedFrameNumber = frame.number
    return named
