"""Opening an association as acceptor (PS3.8 9.3): the PDUs are pynetdicom's, and so is the choice of contexts."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.uid import UID
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from dicom_io.pdu_stream import AbortReason, PduType, ProtocolFault

#: What pynetdicom's decoder raises on bytes that are no A-ASSOCIATE-RQ.
_DECODE_FAULTS = (
    struct.error,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    OverflowError,
)
_PROTOCOL_VERSION_1 = 0x0001
_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_UNLIMITED_PDU_BYTES = 131_072


@dataclass(frozen=True, slots=True)
class AssociationRequest:
    """What a caller asks for."""

    calling_ae: str
    called_ae: str
    speaks_version_1: bool
    application_context: str
    contexts: tuple[PresentationContext, ...]
    roles: dict[UID, tuple[bool | None, bool | None]]
    max_pdu_bytes: int  # that it takes from us


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context."""

    abstract_syntax: str
    transfer_syntax: str


def read_request(content: bytes) -> AssociationRequest:
    """Decode an A-ASSOCIATE-RQ; ``content`` is what follows the first six bytes.

    Raises:
        ProtocolFault: it is none.
    """
    try:
        pdu = A_ASSOCIATE_RQ()
        pdu.decode(struct.pack(">BBI", PduType.ASSOCIATE_RQ, 0, len(content)) + content)
        primitive = pdu.to_primitive()
        items = primitive.user_information
        roles = {
            item.sop_class_uid: (item.scu_role, item.scp_role)
            for item in items
            if isinstance(item, SCP_SCU_RoleSelectionNegotiation) and item.sop_class_uid is not None
        }
        lengths = [item.maximum_length_received for item in items if isinstance(item, MaximumLengthNotification)]
        return AssociationRequest(
            calling_ae=str(primitive.calling_ae_title).strip(),
            called_ae=str(primitive.called_ae_title).strip(),
            speaks_version_1=bool(pdu.protocol_version & _PROTOCOL_VERSION_1),
            application_context=str(primitive.application_context_name),
            contexts=tuple(primitive.presentation_context_definition_list),
            roles=roles,
            max_pdu_bytes=(lengths[0] if lengths else 0) or _UNLIMITED_PDU_BYTES,
        )
    except _DECODE_FAULTS as error:
        raise ProtocolFault(AbortReason.INVALID_PARAMETER, "the association request cannot be read") from error


def speaks_dicom(request: AssociationRequest) -> tuple[int, int, int] | None:
    """None, or result, source and reason of a rejection: another protocol version, another application."""
    if not request.speaks_version_1:
        return 1, 2, 2
    if request.application_context != _APPLICATION_CONTEXT:
        return 1, 1, 2
    return None


def accept(
    content: bytes, supported: Sequence[PresentationContext], max_pdu_bytes: int
) -> tuple[bytes, dict[int, Context]]:
    """The A-ASSOCIATE-AC to a request, and the accepted contexts by their ID.

    Raises:
        ProtocolFault: the contexts asked for make no sense.
    """
    request = read_request(content)
    try:
        results, roles = negotiate_as_acceptor(list(request.contexts), list(supported), request.roles)
        answer = A_ASSOCIATE()
        answer.application_context_name = UID(_APPLICATION_CONTEXT)
        answer.calling_ae_title = request.calling_ae
        answer.called_ae_title = request.called_ae
        answer.result, answer.result_source = 0, 1
        answer.presentation_context_definition_results_list = results
        answer.user_information = [*_about_us(max_pdu_bytes), *roles]
        pdu = A_ASSOCIATE_AC()
        pdu.from_primitive(answer)
        encoded = pdu.encode()
    except _DECODE_FAULTS as error:
        raise ProtocolFault(AbortReason.INVALID_PARAMETER, "the presentation contexts cannot be read") from error
    accepted = {
        int(one.context_id): Context(str(one.abstract_syntax), str(one.transfer_syntax[0]))
        for one in results
        if one.result == 0 and one.context_id is not None
    }
    return encoded, accepted


def _about_us(
    max_pdu_bytes: int,
) -> tuple[MaximumLengthNotification, ImplementationClassUIDNotification, ImplementationVersionNameNotification]:
    length = MaximumLengthNotification()
    length.maximum_length_received = max_pdu_bytes
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = PYNETDICOM_IMPLEMENTATION_UID
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = PYNETDICOM_IMPLEMENTATION_VERSION
    return length, implementation, version


def reject_pdu(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ."""
    return struct.pack(">BBIBBBB", PduType.ASSOCIATE_RJ, 0, 4, 0, result, source, reason)


def release_pdu() -> bytes:
    """An A-RELEASE-RP."""
    return struct.pack(">BBII", PduType.RELEASE_RP, 0, 4, 0)


def abort_pdu(reason: AbortReason | None) -> bytes:
    """An A-ABORT: of the service provider with its reason, or of the user (ourselves) without."""
    source = 0 if reason is None else 2
    return struct.pack(">BBIBBBB", PduType.ABORT, 0, 4, 0, 0, source, reason or 0)
