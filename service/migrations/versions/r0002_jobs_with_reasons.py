"""Jobs: the stage of an attempt, the wait after failures, who wanted it and why, whether its files are still there."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Bring a database of revision 0001 up."""
    with op.batch_alter_table("job") as job:
        job.add_column(sa.Column("stage", sa.String(32)))
        job.add_column(sa.Column("not_before", sa.DateTime(timezone=True)))
        job.add_column(sa.Column("reason", sa.Text))
        job.add_column(sa.Column("requested_by", sa.String(64)))
        job.add_column(sa.Column("files", sa.String(16)))
