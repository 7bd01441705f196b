"""The tables of the conformance statement about de-identification, from the rules that are applied."""

from collections.abc import Iterator

from dicom_io.deidentification_rules import CLEAN_STRUCTURED_CONTENT, OPTIONS, RULES, RULES_VERSION, Action
from dicom_io.safe_private import SAFE_PRIVATE_ELEMENTS, SAFE_PRIVATE_SEQUENCES, SafePrivate

_USER_DATA = "user data"


def option_rows() -> Iterator[tuple[str, str, str]]:
    """Code, meaning and where it is recorded (CID 7050), of rules of this version."""
    for code in sorted((*OPTIONS, CLEAN_STRUCTURED_CONTENT), key=lambda one: one.value):
        where = "reports (SR)" if code == CLEAN_STRUCTURED_CONTENT else "every object"
        yield code.value, code.meaning, f"{where}, rules {RULES_VERSION}"


def rule_rows() -> Iterator[tuple[str, str, str]]:
    """What is done, why, and to which attributes."""
    for action in Action:
        for rule in RULES:
            if rule.action is action:
                yield action.value, rule.why, ", ".join(sorted(rule.keywords))


def private_rows() -> Iterator[tuple[str, str, str]]:
    """Address, creator and content of the private elements that stay."""
    for one in (*SAFE_PRIVATE_ELEMENTS, *SAFE_PRIVATE_SEQUENCES):
        if one.why.startswith(_USER_DATA) and one.why not in ("user data 0", "user data 25 to 48"):
            continue
        yield _address(one), one.creator, "user data 0 to 22" if one.why == "user data 0" else one.why


def _address(one: SafePrivate) -> str:
    last = "-BD" if one.why == "user data 0" else ""
    return f"({one.group:04X},xx{one.offset:02X}{last})"
