"""The tables of the DICOM conformance statement, from the code that they tell of.

``CONFORMANCE.md`` is written by hand but for what stands between ``<!-- table: NAME -->`` and ``<!-- end -->``: these
tables. ``python -m tests.conformance`` brings them up to date, and a test keeps them so.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pydicom
from pydicom.datadict import dictionary_description, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION

from config.corrections import CorrectionSettings
from config.reception import Reception
from config.sections import Section
from config.settings import Delivery, Destination, Peer, Settings, Source
from config.tls import TLS, ClientTLS
from dicom_io import codes, commitment, deidentification_tables, retriever, stow, upper_layer
from dicom_io.pixels import DECODED_TRANSFER_SYNTAXES
from dicom_io.presentation import STORAGE_TRANSFER_SYNTAXES, StoreStatus, accepted_contexts, describe
from dicom_io.source_attributes import PATIENT_STUDY_KEYWORDS

#: Objects of two exams that differ in all that exams differ in: what is the same in both is the writer's.
Example = tuple[Dataset, Dataset]
_LONGEST_VALUE = 48
#: What the example exams have in common by chance.
_ALIKE_IN_EXAMPLES = ("FrameOfReferenceUID", "InstanceNumber", "SpacingBetweenSlices", "SliceThickness")
_FILE_VERSION = f"PYDICOM {pydicom.__version__}"


def with_tables(text: str, tables: Mapping[str, str]) -> str:
    """The statement with its tables as they are now.

    Raises:
        ValueError: it has not a place for each table, or one for a table that there is not.
    """
    places = re.findall(r"<!-- table: (\S+) -->", text)
    if sorted(places) != sorted(tables):
        raise ValueError(f"tables {sorted(tables)}, places {sorted(places)}")
    return re.sub(
        r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}{tables[found[2]]}{found[3]}",
        text,
        flags=re.DOTALL,
    )


def conformance_tables(examples: Mapping[str, Example]) -> dict[str, str]:
    """All tables, by name. ``examples``: for each role of an object (its file's name), it from two exams."""
    return {
        "implementation": _implementation(),
        "association": _association(),
        "accepted": _accepted(),
        "transfer-syntaxes": _transfer_syntaxes(),
        "store-statuses": _store_statuses(),
        "fetched": _table(("SOP class", "UID"), ((UID(one).name, one) for one in retriever.FETCHED_CLASSES)),
        "stow": _stow(),
        "objects": _objects(examples),
        "copied": _copied(),
        "attributes": _attributes(examples),
        "codes": _private_codes(),
        "settings": _settings(),
        "storage-classes": _storage_classes(),
        "deidentification-options": _table(("Code", "Option", "Recorded in"), deidentification_tables.option_rows()),
        "deidentification-rules": _table(("What is done", "Why", "Attributes"), deidentification_tables.rule_rows()),
        "deidentification-private": _table(("Element", "Creator", "What"), deidentification_tables.private_rows()),
    }


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |\n" for line in lines)


def _implementation() -> str:
    rows = (
        ("Associations", PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION),
        ("Files it writes", PYDICOM_IMPLEMENTATION_UID, _FILE_VERSION),
    )
    return _table(("Where", "Implementation Class UID", "Implementation Version Name"), rows)


def _association() -> str:
    rows = (
        ("Maximum PDU size received", f"{upper_layer.MAX_PDU_BYTES} bytes"),
        ("Simultaneous associations accepted", f"{Settings().max_associations} (`max_associations`)"),
        ("Simultaneous associations initiated", "one to each destination and each source"),
        ("Asynchronous operations window", "not negotiated (one operation at a time)"),
        (
            "An association on which nothing arrives is dropped after",
            f"{Settings().reception.idle_s:g} s (`reception.idle_s`)",
        ),
        ("A peer that falls silent inside a PDU is dropped after", f"{upper_layer.Deadlines().pdu_s:g} s"),
        (
            "A connection on which no association is asked for is dropped after",
            f"{upper_layer.Deadlines().request_s:g} s",
        ),
        ("Connecting, and each answer, as requestor", f"{Settings().delivery.timeout_s:g} s (`timeout_s`)"),
    )
    return _table(("What", "Value"), rows)


def _accepted() -> str:
    verification, *storage = accepted_contexts()
    push = commitment.commitment_context()
    names = ", ".join(UID(one).name for one in verification.transfer_syntax)
    rows = (
        (UID(verification.abstract_syntax).name, verification.abstract_syntax, names, "SCP"),
        (f"{len(storage)} storage SOP classes (annex A)", "annex A", "those of the next table", "SCP"),
        (
            UID(push.abstract_syntax).name,
            push.abstract_syntax,
            ", ".join(UID(one).name for one in push.transfer_syntax),
            "SCP, and SCU of the node's own requests",
        ),
    )
    return _table(("SOP class", "UID", "Transfer syntaxes", "Role"), rows)


def _transfer_syntaxes() -> str:
    rows = (
        (UID(one).name, one, "yes" if one in DECODED_TRANSFER_SYNTAXES else "no") for one in STORAGE_TRANSFER_SYNTAXES
    )
    return _table(("Transfer syntax", "UID", "Pixels are decoded"), rows)


def _store_statuses() -> str:
    return _table(("Status", "Name"), ((describe(one), one.name) for one in StoreStatus))


def _stow() -> str:
    told, refused = (", ".join(str(one) for one in group) for group in (stow.TOLD, stow.REFUSED))
    rows = (
        (told, "the object is stored if Referenced SOP Sequence names it; else it is refused, with its Failure Reason"),
        (refused, "this object is refused; it waits and is sent again, the others go on"),
        ("any other", "the service is not to be had now; everything waits"),
    )
    return _table(("HTTP status", "Meaning"), rows)


def _objects(examples: Mapping[str, Example]) -> str:
    rows = (
        (
            f"`{role}`",
            UID(one.SOPClassUID).name,
            one.SOPClassUID,
            UID(one.file_meta.TransferSyntaxUID).name,
            one.Modality,
            one.SeriesNumber,
            one.SeriesDescription,
        )
        for role, (one, _) in examples.items()
    )
    head = ("Object", "SOP class", "UID", "Transfer syntax", "Modality", "Series Number", "Series Description")
    return _table(head, rows)


def _copied() -> str:
    rows = ((_tag(keyword), dictionary_description(keyword)) for keyword in PATIENT_STUDY_KEYWORDS)
    return _table(("Tag", "Attribute"), sorted(rows))


def _attributes(examples: Mapping[str, Example]) -> str:
    """For each SOP class the attributes of its objects that are not the patient's, the study's or the trial's."""
    roles: dict[str, list[str]] = {}
    for role, (one, _) in examples.items():
        roles.setdefault(str(one.SOPClassUID), []).append(role)
    text = []
    for sop_class, names in roles.items():
        objects = [one for role in names for one in examples[role]]
        tags = sorted({element.tag for one in objects for element in one if not element.tag.is_private})
        keywords = [keyword_for_tag(tag) for tag in tags if keyword_for_tag(tag) not in PATIENT_STUDY_KEYWORDS]
        text.append(f"\n#### {UID(sop_class).name}: {', '.join(f'`{role}`' for role in names)}\n\n")
        head = ("Tag", "Attribute", "VR", "Present", "Value")
        text.append(_table(head, (_attribute(keyword, objects) for keyword in keywords)))
    return "".join(text)


def _attribute(keyword: str, objects: Sequence[Dataset]) -> tuple[str, ...]:
    elements = [one[keyword] for one in objects if keyword in one]
    present = "always" if len(elements) == len(objects) else "in some"
    vr = elements[0].VR
    return _tag(keyword), dictionary_description(keyword), vr, present, _value(elements)


def _value(elements: Sequence[DataElement]) -> str:
    """What stands in an attribute of some objects, as far as it is the same in all."""
    one = elements[0]
    if one.VR == "SQ":
        counts = {len(element.value) for element in elements}
        return "1 item" if counts == {1} else "items"
    if (
        one.VR in ("OB", "OW", "OF", "OD")
        or one.keyword in _ALIKE_IN_EXAMPLES
        or any(element.value != one.value for element in elements)
    ):
        return "of the object"
    text = "\\".join(str(part) for part in one.value) if one.VM > 1 else "" if one.value is None else str(one.value)
    if not text:
        return "empty"
    return f"`{text}`" if len(text) <= _LONGEST_VALUE else "a text, always the same"


def _private_codes() -> str:
    found = {
        code.value: code.meaning
        for code in _codes_in(vars(codes).values())
        if code.scheme_designator == codes.PRIVATE_SCHEME
    }
    return _table(("Code value", "Code meaning"), sorted(found.items()))


def _codes_in(values: Iterable[Any]) -> Iterable[Code]:
    for value in values:
        if isinstance(value, Code):
            yield value
        elif isinstance(value, dict):
            yield from _codes_in(value.values())


def _settings() -> str:
    sections: tuple[tuple[str, type[Section]], ...] = (
        ("tls", TLS),
        ("peers", Peer),
        ("sources", Source),
        ("corrections", CorrectionSettings),
        ("destinations", Destination),
        ("destinations.tls", ClientTLS),
        ("reception", Reception),
        ("delivery", Delivery),
    )
    node = ("ae_title", "bind", "port", "max_associations")
    rows = [(f"`{name}`", _default(Settings, name), Settings.model_fields[name].description) for name in node]
    rows += [
        (f"`{section}.{name}`", _default(model, name), field.description)
        for section, model in sections
        for name, field in model.model_fields.items()
    ]
    return _table(("Setting", "Default", "Meaning"), rows)


def _default(model: type[Section], name: str) -> str:
    field = model.model_fields[name]
    if field.is_required():
        return "must be given"
    if isinstance(field.default, tuple):
        return ", ".join(str(one) for one in field.default) or "empty"
    return "none" if field.default is None else str(field.default)


def _storage_classes() -> str:
    _, *storage = accepted_contexts()
    rows = sorted((UID(str(one.abstract_syntax)).name, str(one.abstract_syntax)) for one in storage)
    return _table(("SOP class", "UID"), rows)


def _tag(keyword: str) -> str:
    number = tag_for_keyword(keyword)
    if number is None or keyword_for_tag(number) != keyword:
        raise ValueError(f"{keyword} is no attribute")
    return f"({number >> 16:04X},{number & 0xFFFF:04X})"
