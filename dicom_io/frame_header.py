"""Where the attributes of one image stand: at the root of its object, or in the functional groups of Enhanced MR."""

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from config.protocol_cards import ElementAddress
from dicom_io.raw_header import RawHeader, RawItem
from processing.refusal import ReasonCode, UnsuitableInput

#: Philips repeats the attributes of classic MR in private items: of all frames (xx0E) and of each frame (xx0F).
_PHILIPS_ITEMS = ((0x2005, "Philips MR Imaging DD 005", 0x0E), (0x2005, "Philips MR Imaging DD 005", 0x0F))

#: PS3.3 C.7.6.16.2.25: what a converted object keeps of the classic headers it was made from.
_CONVERTED_ITEMS = ("UnassignedSharedConvertedAttributesSequence", "UnassignedPerFrameConvertedAttributesSequence")


_PATIENT_GROUP = 0x0010
_LONGEST_TEXT = 256

_NOWHERE = RawItem(Dataset(), "latin-1")


class FrameHeader:
    """The attributes of one image, each looked for in several places, the most specific first.

    A place is written ``"PlanePositionSequence/ImagePositionPatient"`` (in a functional group: the frame's own, else
    that of all frames), ``"EchoTime"`` (as in classic MR: in what Philips or a conversion keeps of classic headers, of
    the frame, then of all frames, then at the root) or ``"/Rows"`` (at the root alone). An image of a classic object
    has a root only. To be used in :func:`dicom_io.raw_header.quiet_pydicom`.
    """

    def __init__(self, root: RawHeader, shared: RawItem | None = None, frame: RawItem | None = None) -> None:
        self.root = root
        self._groups = [group for group in (frame, shared) if group is not None]
        kept = [item for group in self._groups for item in _kept_classic_items(group)]
        self._classic = [*kept, root]

    @property
    def is_one_of_many(self) -> bool:
        """Whether the image is a frame of an object that holds more than one."""
        return (self.root.integer("NumberOfFrames") or 1) > 1

    def decimal(self, *places: str) -> float | None:
        """The finite number at the first of the places that has a value; None when none has."""
        item, keyword = self._find(places)
        return item.decimal(keyword)

    def decimals(self, *places: str, count: int | None = None) -> tuple[float, ...]:
        """``count`` (or any number of) finite numbers at the first of the places that has a value, or none."""
        item, keyword = self._find(places)
        return item.decimals(keyword, count=count)

    def integer(self, *places: str) -> int | None:
        """The whole number at the first of the places that has a value; None when none has."""
        item, keyword = self._find(places)
        return item.integer(keyword)

    def integers(self, *places: str) -> tuple[int, ...]:
        """The whole numbers at the first of the places that has a value."""
        item, keyword = self._find(places)
        return item.integers(keyword)

    def text(self, *places: str) -> str:
        """The text at the first of the places that has a value; empty when none has."""
        item, keyword = self._find(places)
        return item.text(keyword)

    def texts(self, *places: str) -> tuple[str, ...]:
        """The texts at the first of the places that has a value."""
        item, keyword = self._find(places)
        return item.texts(keyword)

    def private_number(self, group: int, creator: str, offset: int, *, is_of_each_image: bool = False) -> float | None:
        """The number in a private element of the frame, of all frames or of the root; None when it is nowhere.

        What differs from image to image (``is_of_each_image``) is not taken from the root of an object of many frames:
        there it would be that of one of them.

        Raises:
            UnsuitableInput: UNREADABLE, when the element holds several numbers: which one is meant is not known.
        """
        items = [*self._groups, *self._classic]
        if is_of_each_image and self.is_one_of_many:
            items.remove(self.root)
        for item in items:
            numbers = item.private_numbers(group, creator, offset)
            if len(set(numbers)) > 1:
                text = f"({group:04X},xx{offset:02X}) of {creator} has {len(numbers)} values instead of 1"
                raise UnsuitableInput(ReasonCode.UNREADABLE, text)
            if numbers:
                return numbers[0]
        return None

    def element_text(self, address: ElementAddress) -> str:
        """The value of an element that a protocol card asks for, as text; empty when it is nowhere.

        It is looked for in all groups of the frame, then in those of all frames, then at the root. Different values
        in groups of one kind are all given, so that nobody takes one of them for the one meant.
        """
        levels: list[list[RawItem]] = [[group, *_items_in(group)] for group in self._groups]
        levels.append([self.root])
        for items in levels:
            texts = dict.fromkeys(_element_text(item, address) for item in items)
            if any(texts):
                return "\\".join(text for text in texts if text)
        return ""

    def _find(self, places: tuple[str, ...]) -> tuple[RawItem, str]:
        """The item and keyword of the first place with a value; where there is none, an item without any."""
        keyword = ""
        for place in places:
            sequence, slash, keyword = place.rpartition("/")
            if sequence:
                groups = (group.item(sequence) for group in self._groups)
                items = [item for item in groups if item is not None]
            else:
                items = [self.root] if slash else self._classic
            for item in items:
                if item.has_value(keyword):
                    return item, keyword
        return _NOWHERE, keyword


def frame_headers(root: RawHeader) -> tuple[FrameHeader, ...]:
    """One header for each frame that an Enhanced MR object describes; () when it describes none singly."""
    shared = root.item("SharedFunctionalGroupsSequence")
    return tuple(FrameHeader(root, shared, frame) for frame in root.items("PerFrameFunctionalGroupsSequence"))


def _kept_classic_items(group: RawItem) -> list[RawItem]:
    found = [group.item(tag) for name in _PHILIPS_ITEMS if (tag := group.private_tag(*name)) is not None]
    found += [group.item(keyword) for keyword in _CONVERTED_ITEMS]
    return [item for item in found if item is not None]


def _items_in(group: RawItem) -> list[RawItem]:
    return [item for tag in group.sequence_tags() for item in group.items(tag)]


def _element_text(item: RawItem, address: ElementAddress) -> str:
    """Empty also for what must not be kept: whatever a card asks for, facts hold no identity."""
    if address.keyword is not None:
        tag, creator = tag_for_keyword(address.keyword), ""
        if tag is not None and dictionary_VR(tag) == "PN":
            return ""
    else:
        group, creator, offset = address.group or "0", address.creator or "", address.offset or "0"
        tag = item.private_tag(int(group, 16), creator, int(offset, 16))
    if tag is None or tag >> 16 == _PATIENT_GROUP:
        return ""
    return item.value_text(tag, creator=creator)[:_LONGEST_TEXT]
