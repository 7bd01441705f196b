"""What alembic runs: the revisions, over the connection that it is given, inside the caller's transaction."""

from alembic import context

from service.database import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot change a column: the table is made anew
    compare_type=True,
)
context.run_migrations()
