"""DICOM audit messages judged by the standard: its schema (PS3.15 A.5.1) and the tables of each event (A.5.3)."""

import base64
from collections import Counter
from pathlib import Path

from lxml import etree

_SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).parent.parent / "data" / "audit_message.rng"))
_PATIENT, _STUDY, _SOP_CLASS, _NODE, _URI = (
    ("2", "RFC-3881"),
    ("110180", "DCM"),
    ("110181", "DCM"),
    ("110182", "DCM"),
    ("12", "RFC-3881"),
)
_TRANSFER_ROLES = Counter({"110153": 1, "110152": 1})

#: Event -> allowed actions, allowed types (none: any or none), needed objects, roles that must be there.
_TABLES: dict[str, tuple[set[str], set[str], set[tuple[str, str]], Counter[str]]] = {
    "110100": ({"E"}, {"110120", "110121"}, set(), Counter({"110150": 1})),
    "110101": ({"R"}, set(), {_URI}, Counter()),
    "110102": ({"E"}, set(), {_STUDY, _PATIENT}, _TRANSFER_ROLES),
    "110103": (set("CRUD"), set(), {_STUDY, _PATIENT}, Counter()),
    "110104": (set("CRU"), set(), {_STUDY, _PATIENT}, _TRANSFER_ROLES),
    "110105": ({"D"}, set(), {_STUDY, _PATIENT}, Counter()),
    "110112": ({"E"}, set(), {_SOP_CLASS}, _TRANSFER_ROLES),
    "110113": ({"E"}, set(), {_NODE}, Counter()),
    "110114": ({"E"}, {"110122", "110123"}, set(), Counter()),
}


def check(xml: str) -> etree._Element:
    """The message, which obeys all rules; AssertionError says which it breaks."""
    root = etree.fromstring(xml)
    assert _SCHEMA.validate(root), _SCHEMA.error_log
    event = root.find("EventIdentification")
    code = event.find("EventID").get("csd-code")
    actions, types, objects, roles = _TABLES[code]
    assert event.get("EventActionCode") in actions
    if types:
        assert {one.get("csd-code") for one in event.findall("EventTypeCode")} & types
    participants = root.findall("ActiveParticipant")
    assert sum(one.get("UserIsRequestor") == "true" for one in participants) <= 1  # A.5.2
    for one in participants:
        assert (one.get("NetworkAccessPointID") is None) == (one.get("NetworkAccessPointTypeCode") is None)
    found = Counter(role.get("csd-code") for one in participants for role in one.findall("RoleIDCode"))
    assert found == roles
    _check_objects(root, objects)
    return root


def _check_objects(root: etree._Element, needed: set[tuple[str, str]]) -> None:
    found = Counter()
    for one in root.findall("ParticipantObjectIdentification"):
        kind = one.find("ParticipantObjectIDTypeCode")
        key = (kind.get("csd-code"), kind.get("codeSystemName"))
        found[key] += 1
        expected = {
            _PATIENT: ("1", "1"),
            _STUDY: ("2", "3"),
            _SOP_CLASS: ("2", "3"),
            _NODE: ("2", None),
            _URI: ("2", "13"),
        }[key]
        assert (one.get("ParticipantObjectTypeCode"), one.get("ParticipantObjectTypeCodeRole")) == expected
        if key == _SOP_CLASS:
            assert one.find("ParticipantObjectQuery") is not None
            details = {each.get("type"): base64.b64decode(each.get("value")) for each in one.findall("*[@type]")}
            assert details["TransferSyntax"].startswith(b"1.2.840.10008.1.2")
        if key == _NODE:
            assert one.find("ParticipantObjectDetail").get("type") == "Alert Description"
    assert set(found) == needed
    assert found[_PATIENT] <= 1  # a message is about one patient
