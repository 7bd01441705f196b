"""Which coded entries may stay in a de-identified object: those of standard schemes in their form, and our own."""

import re

from pydicom.sr.coding import Code

from dicom_io import codes

_UCUM = frozenset(
    (
        "ms",
        "s",
        "mm",
        "mm2",
        "mm3",
        "ml",
        "mL",
        "1",
        "%",
        "[arb'U]",
        "Hz",
        "um2/s",
        "mm2/s",
        "{ratio}",
        "rad",
        "mrad",
        "deg",
        "Cel",
    )
)
_FORMS = {
    "DCM": re.compile(r"\d{6}|[A-Z]{2,6}"),
    "SCT": re.compile(r"\d{6,18}"),
    "SRT": re.compile(r"[A-Z]-[0-9A-F]{4,6}"),
    "SNM3": re.compile(r"[A-Z]-[0-9A-F]{4,6}"),
    "LN": re.compile(r"\d{1,6}-\d"),
    "RFC5646": re.compile(r"[a-z]{2}(-[A-Z]{2})?"),
}


def is_known_code(value: str, scheme: str) -> bool:
    """Whether a code value has the form of its scheme; of our own scheme, whether it is one of ours."""
    if scheme == codes.PRIVATE_SCHEME:
        return value in _OURS
    if scheme == "UCUM":
        return value in _UCUM
    form = _FORMS.get(scheme)
    return form is not None and form.fullmatch(value) is not None


def _ours() -> frozenset[str]:
    found: set[str] = set()
    for one in vars(codes).values():
        several = one.values() if isinstance(one, dict) else (one,)
        found.update(code.value for code in several if isinstance(code, Code))
    return frozenset(found)


_OURS = _ours()
