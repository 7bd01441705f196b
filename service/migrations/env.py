"""What alembic runs: the revisions, over the connection that it is given, inside the caller's transaction."""

from typing import Any, Literal

from alembic import context

from service.database import UtcDateTime, metadata


def _frozen(kind: str, value: Any, _context: Any) -> str | Literal[False]:
    """How a type is written in a new revision: revisions do not follow changes of ours."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(value, UtcDateTime) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot change a column: the table is made anew
    compare_type=True,
    render_item=_frozen,
)
context.run_migrations()
