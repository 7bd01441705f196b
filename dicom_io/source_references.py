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
        if "SourceImageSequence" in dataset:
            dataset.SourceImageSequence = image_references(source.grid_instances)


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


def other_studies(source: SourceExam) -> Sequence:
    """References to the images of other studies than the results' own, by study and series (PS3.3 C.12.2).

    An exam may be spread over studies, as where an anonymiser gave each spin-lock time a study of its own.
    """
    own = source.grid_instances[0].StudyInstanceUID
    series: dict[tuple[UID, UID], dict[UID, Dataset]] = {}
    for one in source.all_instances:
        if one.StudyInstanceUID != own:
            item = series.setdefault((one.StudyInstanceUID, one.SeriesInstanceUID), {})
            item[one.SOPInstanceUID] = one
    studies: dict[UID, Dataset] = {}
    for (study_uid, series_uid), instances in series.items():
        of_series = Dataset()
        of_series.SeriesInstanceUID = series_uid
        of_series.ReferencedInstanceSequence = image_references(instances.values())
        for item in of_series.ReferencedInstanceSequence:
            if "ReferencedFrameNumber" in item:
                del item.ReferencedFrameNumber  # instances are named as wholes here
        study = studies.setdefault(study_uid, Dataset())
        study.StudyInstanceUID = study_uid
        study.ReferencedSeriesSequence = [*study.get("ReferencedSeriesSequence", ()), of_series]
    return Sequence(studies.values())


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
        items = [_named(item, frames, element.keyword in _NAMES_FRAMES) for item in before]
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
