"""``python -m service.migrations "what is new"``: write the next revision from the difference to the tables."""

import sys

from alembic import command
from sqlalchemy import create_engine

from service.migration import alembic_config
from service.migrations import newest_revision


def main() -> int:
    """Write the file; returns the exit status."""
    if len(sys.argv) != 2 or not sys.argv[1].strip():
        sys.stderr.write('usage: python -m service.migrations "what is new"\n')
        return 2
    with create_engine("sqlite://").begin() as connection:
        config = alembic_config(connection)
        config.set_main_option("file_template", "r%%(rev)s_%%(slug)s")
        command.upgrade(config, "head")
        command.revision(config, sys.argv[1], autogenerate=True, rev_id=f"{int(newest_revision()) + 1:04d}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
