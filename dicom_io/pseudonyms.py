"""Pseudonyms of a trial: UIDs and shifts of dates that follow from its key, and can be found again only with it."""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import date, timedelta

from pydicom.uid import UID, UID_dictionary  # type: ignore[attr-defined]

_STANDARD_ROOT = "1.2.840.10008."
_PREFIX = "2.25."
#: A mapped UID is a UUID of version 8 (RFC 9562): of its 122 free bits these check the others, so that the key's owner
#: knows it for one.
_CHECK_BITS, _HEAD_BITS = 32, 90
_LEAST_WEEKS, _MOST_WEEKS = 52, 519


@dataclass(frozen=True, slots=True)
class TrialIdentity:
    """Who a subject is in a trial, and which visit it is: all that a de-identified object says of the person."""

    protocol_id: str
    site_id: str
    subject_id: str
    time_point_id: str
    protocol_name: str = ""
    sponsor: str = ""
    coordinating_center: str = ""
    site_name: str = ""


class Pseudonyms:
    """The maps of one subject of one trial, by HMAC-SHA256 under the trial's key.

    The map of UIDs is that of the trial, the same for all subjects and visits, so that references stay whole. The
    shift of dates is the subject's: whole weeks into the past, between one and ten years. Whole weeks keep the day of
    the week, so that visits on a weekend, or a scanner's weekly phantom, still look like what they are, and no date
    comes to lie in the future, which some archives refuse.
    """

    def __init__(self, key: bytes, protocol_id: str, subject_id: str) -> None:
        self._key = key
        self._protocol_id = protocol_id
        span = _MOST_WEEKS - _LEAST_WEEKS + 1
        number = int.from_bytes(self._digest("date shift", subject_id)[:8], "big")
        self.shift = timedelta(weeks=-(_LEAST_WEEKS + number % span))

    def uid(self, uid: str) -> str:
        """The UID in the trial's name space: standard ones as they are, mapped ones too, others 2.25.*."""
        if is_standard(uid) or self.is_mapped(uid):
            return uid
        head = int.from_bytes(self._digest("uid", uid), "big") >> (256 - _HEAD_BITS)
        return f"{_PREFIX}{_as_uuid(head << _CHECK_BITS | self._check(head))}"

    def is_mapped(self, uid: str) -> bool:
        """Whether a UID came out of this map: a second pass changes nothing."""
        text = uid.removeprefix(_PREFIX)
        if text == uid or not text.isascii() or not text.isdigit() or len(text) > 39:
            return False
        payload = _of_uuid(int(text))
        head, check = divmod(payload, 1 << _CHECK_BITS)
        return _as_uuid(payload) == int(text) and check == self._check(head)

    def shifted(self, day: date) -> date:
        """The day, shifted.

        Raises:
            OverflowError: it would lie before the year 1.
        """
        return day + self.shift

    def original(self, day: date) -> date:
        """The day that was shifted to this one."""
        return day - self.shift

    def _check(self, head: int) -> int:
        return int.from_bytes(self._digest("check", str(head))[: _CHECK_BITS // 8], "big")

    def _digest(self, purpose: str, text: str) -> bytes:
        parts = (purpose, self._protocol_id, text)
        message = "".join(f"{len(part.encode())}:{part}" for part in parts).encode()
        return hmac.new(self._key, message, hashlib.sha256).digest()


def _as_uuid(payload: int) -> int:
    """122 bits as a UUID of version 8, variant 10."""
    return payload >> 74 << 80 | 8 << 76 | (payload >> 62 & 0xFFF) << 64 | 2 << 62 | payload & (1 << 62) - 1


def _of_uuid(number: int) -> int:
    return (number >> 80) << 74 | (number >> 64 & 0xFFF) << 62 | number & (1 << 62) - 1


def key_name(key: bytes) -> str:
    """A short name of a key, which tells nothing of it: the same key was used, or another one."""
    return hmac.new(key, b"name of the key", hashlib.sha256).hexdigest()[:12]


def is_standard(uid: str) -> bool:
    """Whether DICOM itself has given the UID: SOP classes, transfer syntaxes, well-known frames, context groups."""
    return uid in UID_dictionary or (uid.startswith(_STANDARD_ROOT) and UID(uid).is_valid)
