"""${message}."""

import sqlalchemy as sa
from alembic import op

revision = "${up_revision}"
down_revision = "${down_revision}"


def upgrade() -> None:
    """Bring a database of revision ${down_revision} up."""
    ${upgrades if upgrades else "pass"}
