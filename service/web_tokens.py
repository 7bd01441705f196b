"""Tokens for the HTTP API: made once, shown once, kept as hashes in a file of the operator's."""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from config.secret_files import check_secret_file
from config.settings import SettingsError

_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,60}")
_LINE = re.compile(r"(?P<name>[A-Za-z0-9_.@-]{1,60}) (?P<role>viewer|reviewer|admin) (?P<sha256>[0-9a-f]{64})")


class Role(IntEnum):
    """What a user may do; each role may do what those before it may."""

    VIEWER = 1  # read
    REVIEWER = 2  # release, discard, correct
    ADMIN = 3  # jobs, settings, everything else


@dataclass(frozen=True, slots=True)
class Token:
    """Whose token it is. The token itself is known to its owner alone."""

    name: str
    role: Role
    sha256: str


def read_tokens(file: Path) -> tuple[Token, ...]:
    """The tokens of a file: a line each, ``NAME ROLE SHA256``. A file that is not there yet holds none.

    Raises:
        SettingsError: it cannot be read, others may read it, or a line is not one.
    """
    if not file.exists():
        return ()
    check_secret_file(file)
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: cannot be read") from error
    tokens = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise SettingsError(f"{file}: line {number} is not 'NAME ROLE SHA256'")
        tokens.append(Token(found["name"], Role[found["role"].upper()], found["sha256"]))
    if len({token.name for token in tokens}) < len(tokens):
        raise SettingsError(f"{file}: two tokens have the same name")
    return tuple(tokens)


def find_token(tokens: Sequence[Token], shown: str) -> Token | None:
    """Whose token was shown; each is compared, in the same time whether it is the one or not."""
    digest = _hashed(shown)
    found = [token for token in tokens if hmac.compare_digest(token.sha256, digest)]
    return found[0] if found else None


def _hashed(token: str) -> str:
    # 256 random bits cannot be guessed, so a slow hash would only cost the node time at each request.
    return hashlib.sha256(token.encode()).hexdigest()


def new_token(file: Path, name: str, role: Role) -> str:
    """Make a token, write its hash to the file, and return it: it is not kept anywhere.

    Raises:
        SettingsError: the name is taken or no name, or the file cannot be used.
    """
    if _NAME.fullmatch(name) is None:
        raise SettingsError(f"{name!r} is no name; allowed: letters, digits and _.@-, at most 60")
    tokens = read_tokens(file)
    if name in {token.name for token in tokens}:
        raise SettingsError(f"{name} has a token; remove it first")
    token = f"discnode_{secrets.token_urlsafe(32)}"
    _write(file, (*tokens, Token(name, role, _hashed(token))))
    return token


def remove_token(file: Path, name: str) -> bool:
    """Remove someone's token; False if there is none. It is refused from the next request on."""
    tokens = read_tokens(file)
    left = tuple(token for token in tokens if token.name != name)
    if len(left) == len(tokens):
        return False
    _write(file, left)
    return True


def _write(file: Path, tokens: Sequence[Token]) -> None:
    """Replace the file in one step; others may not read it from its first byte on."""
    lines = "".join(f"{token.name} {token.role.name.lower()} {token.sha256}\n" for token in tokens)
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
    building = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(lines)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            if file.exists():
                owner = file.stat()  # the node's account may own it while root runs this command
                os.fchown(stream.fileno(), owner.st_uid, owner.st_gid)
            os.fsync(stream.fileno())
        building.replace(file)
    except OSError as error:
        building.unlink(missing_ok=True)
        raise SettingsError(f"{file}: cannot be written: {error.strerror}") from error
