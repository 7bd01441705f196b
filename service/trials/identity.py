"""Whose exam it is, without keeping whose it is: PatientIDs as keyed digests."""

import hmac
from pathlib import Path

from service.audit_trail import patient_key

_PURPOSE = b"trial subject\0"  # so that a digest in the audit trail and one of a subject cannot be matched


def patient_digest(storage_dir: Path, patient_id: str) -> str | None:
    """A digest that is equal for equal PatientIDs, under the node's own key; None where there is no PatientID."""
    text = " ".join(patient_id.split())
    if not text:
        return None
    key = patient_key(storage_dir / "audit")
    return hmac.digest(key, _PURPOSE + text.encode(), "sha256").hex()
