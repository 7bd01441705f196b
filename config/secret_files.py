"""Secrets lie in files or in the environment, never in settings; and not in files that anyone may read."""

import os
import stat
from pathlib import Path

from config.sections import SettingsError


def check_secret_file(path: Path) -> None:
    """Refuse a file with a secret that other users of the machine may read or change.

    Its group may read it: that is how a service is lent a key (Debian's ``ssl-cert``, Kubernetes' ``fsGroup``). Others
    may not: a warning would be read by nobody, and everybody's account would do for taking the node's place.

    Raises:
        SettingsError: naming the file and what to do, never what is in it.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise SettingsError(
            f"{path}: holds a secret, but its mode is {stat.S_IMODE(mode):04o}; allow its owner alone (chmod 600), or"
            " its group to read it (chmod 640)"
        )


def read_secret(path: Path) -> str:
    """The one line in a file with a secret.

    Raises:
        SettingsError: it cannot be read, is empty, or others may read it; what is in it is not told.
    """
    check_secret_file(path)
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read") from error
    if not text or "\n" in text:
        raise SettingsError(f"{path}: must hold one line")
    return text


def secret_variable(name: str) -> str:
    """The secret in an environment variable.

    Raises:
        SettingsError: it is not set.
    """
    value = os.environ.get(name, "").strip()
    if not value:
        raise SettingsError(f"environment variable {name}: is not set")
    return value
