"""Descriptions rebuilt from an allowed vocabulary: words that belong to the trade, and the numbers that go with them.

What is not on the list goes, whatever it is. Numbers stay where a word that stays stands before them: spin-lock times
after TSL, echo times after TE; never a number of four digits or more, nor one that could be a date.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

#: Words that stay, in any case of letters. Nobody's name is among them.
WORDS = frozenset(Path(__file__).with_name("descriptor_words.txt").read_text(encoding="ascii").split())
#: After these a list of three numbers or more is one of times, or a version, and no date.
_LISTS = (
    *("tsl", "sl", "sls", "tsls", "t1rho", "rho", "te", "tes", "t2", "t2prep", "prep", "ms", "msec", "ti", "tr"),
    *("discnode", "highdicom"),
)
_DIGESTS = frozenset(("sha256", "digest"))

_TOKEN = re.compile(r"[^\W_]+")
_PIECES = re.compile(r"[23]d|[0-9]+|[^0-9]+")
_SEPARATORS = re.compile(r"[ _/,.;:=()\[\]+\-*'%&<>#|~^\"?!{}]*")
_DIGEST = re.compile(r"[0-9a-f]{12,64}")
_LONGEST_NUMBER = 3


def clean_text(text: str, more_words: Collection[str] = ()) -> str:
    """The text with its allowed words and numbers only; cleaning it again changes nothing.

    Args:
        text: one value.
        more_words: allowed beside the built-in ones, in lower case.
    """
    tokens = list(_TOKEN.finditer(text))
    kept = _kept([token[0] for token in tokens], more_words)
    bounds = [0, *(end for token in tokens for end in token.span()), len(text)]
    between = [text[start:end] for start, end in zip(bounds[::2], bounds[1::2], strict=True)]
    if all(kept) and all(_SEPARATORS.fullmatch(one) for one in between):
        return text if tokens else ""
    rebuilt = ""
    for place, token in enumerate(tokens):
        if not kept[place]:
            continue
        if rebuilt:
            is_whole = kept[place - 1] and _SEPARATORS.fullmatch(between[place])
            rebuilt += between[place] if is_whole else " "
        rebuilt += token[0]
    return rebuilt


def _kept(tokens: list[str], more_words: Collection[str]) -> list[bool]:
    """Which tokens stay: first the words, then runs of numbers by the word before them."""
    kept = [_is_allowed(token, more_words) for token in tokens]
    for start, end in _number_runs(tokens):
        before = tokens[start - 1].lower() if start and kept[start - 1] else ""
        is_long = end - start > 2
        lists = before in _LISTS or any(piece in _LISTS for piece in _PIECES.findall(before))
        may_stay = bool(before) and (lists or not is_long)
        kept[start:end] = [may_stay and all(kept[start:end])] * (end - start)
    for place, token in enumerate(tokens[1:], 1):
        if _DIGEST.fullmatch(token) and tokens[place - 1].lower() in _DIGESTS:
            kept[place] = kept[place - 1]
    return kept


def _is_allowed(token: str, more_words: Collection[str]) -> bool:
    """Whether a token is a word of the list, or made of such words and of short numbers (TSL40, 40ms)."""
    lower = token.lower()
    if lower in WORDS or lower in more_words:
        return True
    return all(
        len(piece) <= _LONGEST_NUMBER if piece.isascii() and piece.isdigit() else piece in WORDS or piece in more_words
        for piece in _PIECES.findall(lower)
    )


def _number_runs(tokens: list[str]) -> Iterator[tuple[int, int]]:
    """Where tokens that begin with a digit, and are no words of the list, follow each other."""
    start = None
    for place, token in enumerate([*tokens, ""]):
        is_number = token[:1].isdigit() and token.lower() not in WORDS
        if is_number and start is None:
            start = place
        elif not is_number and start is not None:
            yield start, place
            start = None
