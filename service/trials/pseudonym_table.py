"""The pseudonym table: which file became which, for those who keep the trial's key. It is never sent anywhere."""

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from config.secret_files import check_secret_file
from config.settings import SettingsError
from dicom_io.deidentified_files import DeidentifiedFile
from dicom_io.pseudonyms import Pseudonyms, TrialIdentity, key_name

COLUMNS = (
    *("protocol_id", "subject_id", "visit", "patient_id", "study_uid", "series_uid", "sop_instance_uid"),
    *("deidentified_study_uid", "deidentified_series_uid", "deidentified_sop_instance_uid", "shift_days", "key"),
)


def append_rows(path: Path, identity: TrialIdentity, files: Sequence[DeidentifiedFile], key: bytes) -> None:
    """Add a row for each file to a table that only its owner can read; rows that are there are not added again.

    Raises:
        SettingsError: others may read the file, or it is another table.
        OSError: it cannot be written.
    """
    known = {tuple(row[name] for name in COLUMNS) for row in read_rows(path)} if path.exists() else set()
    pseudonyms = Pseudonyms(key, identity.protocol_id, identity.subject_id)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if stream.tell() == 0:
            writer.writerow(COLUMNS)
        for file in files:
            uids = (file.original_study_uid, file.original_series_uid, file.original_uid)
            row = (
                *(identity.protocol_id, identity.subject_id, identity.time_point_id, file.original_patient_id),
                *uids,
                *(pseudonyms.uid(uid) for uid in uids),
                *(str(pseudonyms.shift.days), key_name(key)),
            )
            if row not in known:
                writer.writerow(row)


def read_rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a table.

    Raises:
        SettingsError: it cannot be read, others may read it, or it is another table.
    """
    check_secret_file(path)
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise SettingsError(f"{path}: is no pseudonym table")
            yield from reader
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read") from error
