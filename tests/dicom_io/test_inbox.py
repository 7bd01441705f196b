import errno
import hashlib
import os
from pathlib import Path

import pytest

from dicom_io.inbox import Inbox


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_stored_file_has_its_digest_as_name(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox")
    stored = inbox.store((b"abc", b"def"))

    assert stored.sha256 == hashlib.sha256(b"abcdef").hexdigest()
    assert inbox.path(stored.name).read_bytes() == b"abcdef"
    assert stored.is_new
    assert stored.size_bytes == 6


def test_equal_bytes_share_one_file(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox")
    first, second = inbox.store((b"abc",)), inbox.store((b"a", b"bc"))

    assert second.name == first.name
    assert not second.is_new
    assert len(files_in(inbox.folder)) == 1


def test_a_shorter_file_under_the_final_name_is_replaced(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox")
    path = inbox.path(inbox.store((b"abc",)).name)
    path.write_bytes(b"a")

    inbox.store((b"abc",))
    assert path.read_bytes() == b"abc"


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox(tmp_path / "inbox")
    write = os.write

    def write_until_full(descriptor: int, data: memoryview) -> int:
        if len(data) <= 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:4])  # a disk that fills up writes less than asked, without an error at first

    monkeypatch.setattr(os, "write", write_until_full)
    with pytest.raises(OSError, match="No space"):
        inbox.store((b"0123456789",))
    assert files_in(inbox.folder) == []

    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:4]))
    stored = inbox.store((b"0123456789",))
    assert inbox.path(stored.name).read_bytes() == b"0123456789"


def test_a_failing_flush_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox(tmp_path / "inbox")

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        inbox.store((b"abc",))
    assert files_in(inbox.folder) == []


def test_file_and_folder_are_flushed_before_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox(tmp_path / "inbox")
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_flush(descriptor: int) -> None:
        order.append("flush " + ("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"))
        fsync(descriptor)

    def note_rename(source: Path, target: Path) -> None:
        order.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_flush)
    monkeypatch.setattr(os, "replace", note_rename)
    inbox.store((b"abc",))
    assert order == ["flush file", "rename", "flush folder"]


def test_what_a_killed_receiver_left_is_removed(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox")
    (inbox.folder / "incoming" / "half").write_bytes(b"x")
    stored = inbox.store((b"abc",))

    assert Inbox(tmp_path / "inbox").sweep_incoming() == 1
    assert files_in(inbox.folder) == [inbox.path(stored.name)]
