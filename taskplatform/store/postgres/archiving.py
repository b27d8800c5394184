"""Takes back that there is an archive: a database remembers it, so that nobody forgets what others archive."""

from __future__ import annotations

import psycopg

from taskplatform.store.postgres.conninfo import complete_plain
from taskplatform.store.postgres.failures import Purpose, translated
from taskplatform.store.statements import statements


def end_archiving(dsn: str) -> bool:
    """Forget that jobs are archived; False where nobody had said so. Raises StoreUnavailable."""
    with translated(Purpose.CONNECT), psycopg.connect(complete_plain(dsn), autocommit=True) as link:
        return link.execute(statements()["end_archiving"].encode()).rowcount > 0
