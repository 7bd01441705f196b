"""Every kind of event is a message that the standard's schema and tables allow."""

import base64
from datetime import UTC, datetime

import pydicom
import pytest
from audit_rules import check
from lxml import etree
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset

from service.audit import AuditEvent, AuditKind
from service.audit_messages import AuditSite, messages_of

SITE = AuditSite("DISCNODE", "node.example", "disc-1", "hospital")
NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
MR = "1.2.840.10008.5.1.4.1.1.4"


def event(kind: AuditKind, **values: object) -> AuditEvent:
    return AuditEvent(kind, NOW, **{"peer": "SCANNER", "address": "10.0.0.7", "studies": ("1.2.3",), **values})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", AuditKind)
@pytest.mark.parametrize("values", [{}, {"by": "anna", "studies": (), "peer": ""}, {"failed": True, "detail": "why"}])
def test_every_event_is_a_valid_message(kind: AuditKind, values: dict[str, object]) -> None:
    for message in messages_of(event(kind, **values), SITE):
        root = check(message.to_xml())
        assert root.find("AuditSourceIdentification").get("AuditSourceID") == "disc-1"
        outcome = root.find("EventIdentification").get("EventOutcomeIndicator")
        assert outcome == ("4" if values.get("failed") else "0")


def test_the_rules_refuse_what_is_no_audit_message() -> None:
    good = messages_of(event(AuditKind.RELEASED, by="anna"), SITE)[0].to_xml()
    check(good)
    for bad in (
        good.replace('EventActionCode="U"', 'EventActionCode="X"'),
        good.replace("<EventID ", "<EventIdentity "),
        good.replace('codeSystemName="RFC-3881" ', ""),
        good.replace("ParticipantObjectName", "ParticipantName"),
        good.replace('UserIsRequestor="false"', 'UserIsRequestor="true"'),
        good.replace("110180", "110182"),
    ):
        with pytest.raises((AssertionError, etree.XMLSyntaxError)):
            check(bad)


def test_a_transfer_is_a_pair_that_says_the_same() -> None:
    later = NOW.replace(minute=3)
    received = event(AuditKind.RECEIVED, until=later, sop_classes=((MR, 40),), patient="f00d")
    begin, end = (check(one.to_xml()) for one in messages_of(received, SITE))
    assert begin.find(".//EventID").get("originalText") == "Begin Transferring DICOM Instances"
    assert end.find(".//EventID").get("originalText") == "DICOM Instances Transferred"
    assert begin.find("EventIdentification").get("EventDateTime") == "2026-03-01T08:00:00.000Z"
    assert end.find("EventIdentification").get("EventDateTime") == "2026-03-01T08:03:00.000Z"
    for tag in ("ActiveParticipant", "ParticipantObjectIdentification"):
        assert [etree.tostring(one) for one in begin.findall(tag)] == [etree.tostring(one) for one in end.findall(tag)]
    assert begin.find(".//SOPClass").attrib == {"UID": MR, "NumberOfInstances": "40"}
    source = begin.find("ActiveParticipant")
    assert (source.get("AlternativeUserID"), source.get("UserIsRequestor")) == ("AETITLES=SCANNER", "true")


def test_what_was_asked_is_in_a_query_message_as_dicom() -> None:
    root = check(messages_of(event(AuditKind.QUERIED, peer="PACS"), SITE)[0].to_xml())
    query = base64.b64decode(root.find(".//ParticipantObjectQuery").text)
    found = read_dataset(DicomBytesIO(query), is_implicit_VR=True, is_little_endian=True)
    assert isinstance(found, pydicom.Dataset)
    assert (found.QueryRetrieveLevel, found.StudyInstanceUID) == ("SERIES", "1.2.3")


def test_a_calling_title_of_control_characters_and_markup_is_text_in_the_message() -> None:
    refused = event(AuditKind.CALL_REFUSED, peer='\x00\x1b"><Evil/>', detail="unknown AE title \x07", failed=True)
    root = check(messages_of(refused, SITE)[0].to_xml())
    assert root.find(".//Evil") is None
    assert root.findall("ActiveParticipant")[1].get("UserID") == '\ufffd\ufffd"><Evil/>'


def test_an_event_is_the_same_after_it_waited_in_the_queue() -> None:
    one = event(AuditKind.SENT, until=NOW.replace(hour=9), sop_classes=((MR, 2),), by="x", detail="y", failed=True)
    assert AuditEvent.from_json(one.to_json()) == one
    plain = AuditEvent(AuditKind.STOPPED, NOW)
    assert AuditEvent.from_json(plain.to_json()) == plain
