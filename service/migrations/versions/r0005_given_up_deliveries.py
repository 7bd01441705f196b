"""Deliveries that a person gives up; indexes for what is looked at again and again."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Bring a database of revision 0004 up."""
    with op.batch_alter_table("delivery", schema=None) as batch_op:
        batch_op.add_column(sa.Column("given_up_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("given_up_by", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("given_up_reason", sa.Text(), nullable=True))
        batch_op.create_index("delivery_by_state", ["state", "destination"], unique=False)
        batch_op.create_index("delivery_sent", ["destination", "sent_at"], unique=False)
        few = sa.text("denials > 0")
        batch_op.create_index(
            "delivery_denied", ["destination", "state"], unique=False, sqlite_where=few, postgresql_where=few
        )

    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.create_index("job_by_end", ["finished_at"], unique=False)
