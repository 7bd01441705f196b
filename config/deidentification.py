"""How a trial's exams are de-identified, and the secret key from which pseudonymous UIDs and dates follow."""

import os
import secrets
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from config.protocol_cards import ElementAddress
from config.secret_files import read_secret
from config.sections import Section, SettingsError

_KEY_BYTES = 32
_HEAD = "discnode-trial-key-1 "

#: A word that stands in descriptions of a protocol and is nobody's name.
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9]{0,31}$")]


class Deidentification(Section):
    """What a trial needs beyond the built-in rules (dicom_io/deidentification_rules.py)."""

    key_file: Path | None = Field(
        None, description="File with the trial's key (discnode trial key new FILE); nothing is de-identified without"
    )
    vocabulary: tuple[Word, ...] = Field(
        (), description="Words that SeriesDescription, ProtocolName and the like may keep beside the built-in ones"
    )
    safe_private: tuple[ElementAddress, ...] = Field(
        (), description="Private elements with numbers to keep, by group, creator and offset, beside the built-in ones"
    )
    birth_year: bool = Field(True, description="Keep the year of birth, shifted as all dates are; else no birth date")


def write_new_key(path: Path) -> None:
    """Make a random key of 32 bytes and write it to a new file that only its owner can read.

    Raises:
        SettingsError: the file exists already, or cannot be written.
    """
    line = f"{_HEAD}{secrets.token_hex(_KEY_BYTES)}\n".encode()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsError(f"{path}: no new key can be written there: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(line)
        stream.flush()
        os.fsync(descriptor)


def read_key(path: Path) -> bytes:
    """The 32 bytes of a trial's key.

    Raises:
        SettingsError: it cannot be read, others may read it, or it is no key; what is in it is not told.
    """
    text = read_secret(path)
    try:
        key = bytes.fromhex(text.removeprefix(_HEAD))
    except ValueError as error:
        raise SettingsError(f"{path}: is no key of a trial") from error
    if not text.startswith(_HEAD) or len(key) != _KEY_BYTES:
        raise SettingsError(f"{path}: is no key of a trial")
    return key
