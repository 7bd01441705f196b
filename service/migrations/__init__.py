"""The revisions of the database, by alembic. ``discnode serve`` brings an older one up; nothing else changes its form.

To change the tables:

1. change them in :mod:`service.tables` or :mod:`service.trial_tables`. A new column of an old table may be empty, or
   has a ``server_default``.
2. ``python -m service.migrations "what is new"`` writes the next file of ``versions/`` from the difference.
   Read it: alembic does not see a renamed column, nor what old rows should hold.
3. run ``tests/service/test_migrations.py``: it brings databases of earlier programs up and compares them with the
   tables.

A revision that has been released is never changed. Revisions are numbered in one line: 0001, 0002, …
"""

from pathlib import Path

FOLDER = Path(__file__).parent


class DatabaseRefused(Exception):
    """The database cannot be used by this program as it is; the message says what to do."""


def known_revisions() -> tuple[str, ...]:
    """The numbers of all revisions, oldest first, read from the names of their files."""
    return tuple(sorted(path.stem[1:5] for path in (FOLDER / "versions").glob("r[0-9][0-9][0-9][0-9]_*.py")))


def newest_revision() -> str:
    """What a database of this program is at."""
    return known_revisions()[-1]
