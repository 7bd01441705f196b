"""The tables of the node's record, and of its trials (:mod:`service.trial_tables`)."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC in Python; stored as UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Refuse naive times."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Give the zone back that SQLite drops."""
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()

#: A received object. ``path`` is relative to the inbox folder; ``facts`` is the header as the assembly needs it.
instance = Table(
    "instance",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sop_uid", String(64), nullable=False, index=True),
    Column("sop_class_uid", String(64), nullable=False),
    Column("study_uid", String(64), nullable=False),
    Column("series_uid", String(64), nullable=False),
    Column("transfer_syntax", String(64), nullable=False),
    Column("path", String(255), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("facts", JSON),
    Column("state", String(16), nullable=False),
    UniqueConstraint("sop_uid", "sha256"),
    Index("instance_by_study", "study_uid", "state"),
    Index("instance_by_state", "state"),
)

#: The images of one study. ``version`` counts its analyses.
exam = Table(
    "exam",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_uid", String(64), nullable=False, unique=True),
    Column("state", String(16), nullable=False, index=True),
    Column("has_news", Boolean, nullable=False),
    Column("detail", Text, nullable=False, default=""),
    Column("version", Integer, nullable=False, default=0),
    Column("first_arrival_at", UtcDateTime, nullable=False),
    Column("last_arrival_at", UtcDateTime, nullable=False),
    Column("patient_key", String(64)),  # a digest, not the identity; of the images last judged
    Column("study_date", String(64)),
    Column("awaiting", Text),  # while it waits: what for
    Column("joined_to", Integer),  # the exam that this study's images are measured with
    Column("trial_seen", Boolean),  # its present state was taken in by the trials; empty: it is news to them
    Index("exam_by_patient", "patient_key", "study_date"),
    Index("exam_by_owner", "joined_to"),
    Index("exam_by_trial_news", "trial_seen", "state"),
)

#: One analysis. ``created_at`` stands as the production time in its results, the same for every attempt.
job = Table(
    "job",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("exam_id", ForeignKey("exam.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("inputs", JSON, nullable=False),  # paths relative to the inbox folder
    Column("inputs_digest", String(64), nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("protocol", String(256), nullable=False),  # names of one card or, joined, of two scans
    Column("attempts", Integer, nullable=False, default=0),
    Column("created_at", UtcDateTime, nullable=False),
    Column("lease_until", UtcDateTime),
    Column("worker", String(64)),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("verdict", String(16)),
    Column("error", Text),
    Column("predecessor", Integer),  # the version whose result this one supersedes
    Column("lowest_disc", String(8)),  # a person's word on the lowest disc in view, e.g. L4L5
    Column("correction", String(255)),  # a person's discs: the segmentation's path relative to the inbox folder
    Column("stage", String(32)),  # what the newest attempt did last
    Column("not_before", UtcDateTime),  # after failures: when it is tried again
    Column("reason", Text),  # why a person had it made
    Column("requested_by", String(64)),  # who that was
    Column("files", String(16)),  # of its results: service.states.FilesState; empty: there
    Column("kind", String(16)),  # of what was measured: phantom; empty: a subject
    Index("job_by_kind", "kind", "state"),
    UniqueConstraint("exam_id", "version"),
)

#: One result object on its way to one destination. ``path`` is relative to the storage folder.
delivery = Table(
    "delivery",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", ForeignKey("job.id"), nullable=False),
    Column("sop_uid", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("path", String(255), nullable=False),
    Column("destination", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("not_before", UtcDateTime, nullable=False),
    Column("last_status", Integer),
    Column("last_error", String(255)),
    Column("sent_at", UtcDateTime),
    Column("sop_class_uid", String(64)),  # this and the next two: from when it was sent
    Column("study_uid", String(64)),
    Column("series_uid", String(64)),
    Column("confirmed_at", UtcDateTime),
    Column("confirmed_by", String(16)),  # commitment or query
    Column("ask_not_before", UtcDateTime),  # of one that is sent: when the destination is to be asked about it
    Column("asks", Integer),  # how often it was asked since it was sent
    Column("denials", Integer),  # how often it was said to be stored and then was not there
    Column("release", String(16)),  # config.release.Release, of its routes and its trial; empty: automatic
    Column("holds", JSON(none_as_null=True)),  # what holds it: service.holds.Hold -> words; empty: nothing
    Column("approved_sha256", String(64)),  # of its file, when a person approved it
    Column("report_id", Integer),  # of the subject's report (trial_report) that it is of; empty: of its job
    UniqueConstraint("sop_uid", "destination"),
    Index("delivery_of_job", "job_id"),
    Index("delivery_by_state", "state", "job_id"),
    Index("delivery_due", "destination", "state", "not_before"),
    Index("delivery_asked", "destination", "state", "ask_not_before"),
)

#: A storage commitment request of ours to a destination, and the deliveries it asks about.
asked_commitment = Table(
    "asked_commitment",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("transaction_uid", String(64), nullable=False, unique=True),
    Column("destination", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Index("asked_commitment_due", "destination", "state", "expires_at"),
)
asked_item = Table(
    "asked_item",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("asked_id", ForeignKey("asked_commitment.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("delivery_id", ForeignKey("delivery.id", ondelete="CASCADE"), nullable=False, index=True),
)

#: A comparison of what was sent to a destination with what it has. ``details``: counts and UIDs of what differs.
reconciliation = Table(
    "reconciliation",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("destination", String(64), nullable=False, index=True),
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime, nullable=False),
    Column("n_compared", Integer, nullable=False),
    Column("n_there", Integer, nullable=False),
    Column("details", JSON),
    Column("error", String(255)),
)

#: What a source last said of one series. ``unchanged_since``: when it said so first.
source_answer = Table(
    "source_answer",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("source", String(64), nullable=False),
    Column("study_uid", String(64), nullable=False, index=True),
    Column("series_uid", String(64), nullable=False),
    Column("n_objects", Integer, nullable=False),
    Column("unchanged_since", UtcDateTime, nullable=False),
    Column("asked_at", UtcDateTime, nullable=False),
    UniqueConstraint("source", "study_uid", "series_uid"),
)

#: When a source was asked about an exam and is to be asked next, and how often it was asked to send what is missing.
enquiry = Table(
    "enquiry",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("source", String(64), nullable=False),
    Column("exam_id", ForeignKey("exam.id"), nullable=False),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("not_before", UtcDateTime, nullable=False),
    Column("n_unchanged", Integer, nullable=False),  # answers in a row that told nothing new
    Column("n_fetches", Integer, nullable=False),
    Column("fetch_not_before", UtcDateTime, nullable=False),
    UniqueConstraint("source", "exam_id"),
)

#: A storage commitment request (PS3.4 J): a list of what the sender says it has sent.
commitment = Table(
    "commitment",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("transaction_uid", String(64), nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("attempts", Integer, nullable=False),
    Column("not_before", UtcDateTime, nullable=False),
    Column("last_error", String(255)),
    Column("found_whole", Boolean),  # whether all it lists was read and found unchanged; empty: not yet looked
    UniqueConstraint("transaction_uid", "calling_ae"),
)

#: One object of a commitment request.
commitment_item = Table(
    "commitment_item",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("commitment_id", ForeignKey("commitment.id"), nullable=False, index=True),
    Column("sop_class_uid", String(64), nullable=False),
    Column("sop_uid", String(64), nullable=False, index=True),
)

#: Something held, with a reason. An object (``instance_id``, or only ``path`` if it is not readable), or an exam.
quarantine = Table(
    "quarantine",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("code", String(32), nullable=False),
    Column("detail", Text, nullable=False),
    Column("instance_id", ForeignKey("instance.id")),
    Column("exam_id", ForeignKey("exam.id")),
    Column("sop_uid", String(64), nullable=False, default=""),
    Column("path", String(255), nullable=False, default=""),
    Column("sha256", String(64), nullable=False, default=""),
    Column("calling_ae", String(16), nullable=False, default=""),
    Column("created_at", UtcDateTime, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("resolved_reason", Text),
    Column("resolved_at", UtcDateTime),
    Column("resolved_by", String(64)),  # who did it, where a person did
)

#: An event that waits to be written to the audit trail. Numbers are never used again: the trail says which were read.
audit_queue = Table(
    "audit_queue",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("event", Text, nullable=False),  # service.audit_events.AuditEvent as JSON
    sqlite_autoincrement=True,
)

#: The end of the audit trail, noted here too: a trail that was cut off together with its own note is seen.
audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("hash", String(64), nullable=False),
)

#: What is counted and has no rows of its own: refused calls by reason, processes that died by kind.
tally = Table(
    "tally",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(32), nullable=False),
    Column("label", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    UniqueConstraint("name", "label"),
)
