"""The tables as of 0.1.0 and 0.2.0.dev0, before there were revisions; what an even older database lacks is added."""

from alembic import op
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
    UniqueConstraint,
    inspect,
)

revision = "0001"
down_revision = None

_METADATA = MetaData()
_TIME = DateTime(timezone=True)

Table(
    "instance",
    _METADATA,
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
    Column("received_at", _TIME, nullable=False),
    Column("facts", JSON),
    Column("state", String(16), nullable=False),
    UniqueConstraint("sop_uid", "sha256"),
    Index("instance_by_study", "study_uid", "state"),
    Index("instance_by_state", "state"),
)

Table(
    "exam",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("study_uid", String(64), nullable=False, unique=True),
    Column("state", String(16), nullable=False, index=True),
    Column("has_news", Boolean, nullable=False),
    Column("detail", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("first_arrival_at", _TIME, nullable=False),
    Column("last_arrival_at", _TIME, nullable=False),
    Column("patient_key", String(64)),
    Column("study_date", String(64)),
    Column("awaiting", Text),
    Column("joined_to", Integer),
    Index("exam_by_patient", "patient_key", "study_date"),
    Index("exam_by_owner", "joined_to"),
)

Table(
    "job",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("exam_id", ForeignKey("exam.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("inputs", JSON, nullable=False),
    Column("inputs_digest", String(64), nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("protocol", String(256), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", _TIME, nullable=False),
    Column("lease_until", _TIME),
    Column("worker", String(64)),
    Column("started_at", _TIME),
    Column("finished_at", _TIME),
    Column("verdict", String(16)),
    Column("error", Text),
    Column("predecessor", Integer),
    Column("lowest_disc", String(8)),
    Column("correction", String(255)),
    UniqueConstraint("exam_id", "version"),
)

Table(
    "delivery",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("job_id", ForeignKey("job.id"), nullable=False),
    Column("sop_uid", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("path", String(255), nullable=False),
    Column("destination", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("not_before", _TIME, nullable=False),
    Column("last_status", Integer),
    Column("last_error", String(255)),
    Column("sent_at", _TIME),
    UniqueConstraint("sop_uid", "destination"),
    Index("delivery_due", "destination", "state", "not_before"),
)

Table(
    "source_answer",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("source", String(64), nullable=False),
    Column("study_uid", String(64), nullable=False, index=True),
    Column("series_uid", String(64), nullable=False),
    Column("n_objects", Integer, nullable=False),
    Column("unchanged_since", _TIME, nullable=False),
    Column("asked_at", _TIME, nullable=False),
    UniqueConstraint("source", "study_uid", "series_uid"),
)

Table(
    "enquiry",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("source", String(64), nullable=False),
    Column("exam_id", ForeignKey("exam.id"), nullable=False),
    Column("asked_at", _TIME, nullable=False),
    Column("not_before", _TIME, nullable=False),
    Column("n_unchanged", Integer, nullable=False),
    Column("n_fetches", Integer, nullable=False),
    Column("fetch_not_before", _TIME, nullable=False),
    UniqueConstraint("source", "exam_id"),
)

Table(
    "commitment",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("transaction_uid", String(64), nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("received_at", _TIME, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("attempts", Integer, nullable=False),
    Column("not_before", _TIME, nullable=False),
    Column("last_error", String(255)),
    UniqueConstraint("transaction_uid", "calling_ae"),
)

Table(
    "commitment_item",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("commitment_id", ForeignKey("commitment.id"), nullable=False, index=True),
    Column("sop_class_uid", String(64), nullable=False),
    Column("sop_uid", String(64), nullable=False, index=True),
)

Table(
    "quarantine",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("code", String(32), nullable=False),
    Column("detail", Text, nullable=False),
    Column("instance_id", ForeignKey("instance.id")),
    Column("exam_id", ForeignKey("exam.id")),
    Column("sop_uid", String(64), nullable=False),
    Column("path", String(255), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("created_at", _TIME, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("resolved_reason", Text),
    Column("resolved_at", _TIME),
    Column("resolved_by", String(64)),
)


def upgrade() -> None:
    """Create the tables; of those that are there, add the columns and indexes that came later (all may be empty)."""
    connection = op.get_bind()
    _METADATA.create_all(connection, checkfirst=True)
    found = inspect(connection)
    for table in _METADATA.sorted_tables:
        known = {column["name"]: column["type"] for column in found.get_columns(table.name)}
        for column in table.columns:
            if column.name not in known:
                op.add_column(table.name, Column(column.name, column.type))
        for index in table.indexes:
            index.create(connection, checkfirst=True)
        if table.name == "job" and getattr(known["protocol"], "length", None) != 256:
            with op.batch_alter_table("job") as batch:
                batch.alter_column("protocol", existing_type=String(64), type_=String(256), existing_nullable=False)
