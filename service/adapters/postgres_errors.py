"""What an error of asyncpg means to a consumer, by SQLSTATE: one place for the decision.

No message of the driver is passed on, and no cause chained: both quote rows (`Failing row contains (…)`,
`invalid input for query argument $3: [...]`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from service.errors import RowRefused, StoreUnavailable

REFUSED_CLASSES: Final = frozenset({"22", "23", "54"})
"""Data exception, integrity violation, and program limit exceeded: an id too long for an index is bad data, too."""

UNAVAILABLE_CLASSES: Final = frozenset({"08", "40", "53", "55", "57"})
"""Connection, rollback (deadlock, serialization), resources, locks and cancellations, operator intervention."""

_READ_ONLY: Final = "25006"
_PLAN_IS_STALE: Final = "0A000"
UNAVAILABLE: Final = frozenset({_READ_ONLY, _PLAN_IS_STALE})
"""A failover has left us on a replica: it, or the connection, will be replaced. A migration has changed a column under
a prepared statement: the driver prepares it anew the next time."""

_UNTRANSLATABLE_CHARACTER: Final = "22P05"
_OUT_OF_RANGE: Final = "22003"


@contextmanager
def translated() -> Iterator[None]:
    """Raise `RowRefused` or `StoreUnavailable` for what they stand for; let everything else pass."""
    try:
        yield
    except asyncpg.PostgresError as error:
        sqlstate = error.sqlstate or ""
        if sqlstate[:2] in REFUSED_CLASSES:
            raise RowRefused(f"Postgres refuses a row: SQLSTATE {sqlstate}", sqlstate) from None
        if sqlstate[:2] in UNAVAILABLE_CLASSES or sqlstate in UNAVAILABLE:
            raise StoreUnavailable(f"Postgres cannot do it now: SQLSTATE {sqlstate}", sqlstate) from None
        raise
    except asyncpg.InterfaceError as error:
        # asyncpg has no class of its own for "the connection (or pool) is closed"; other misuse is a bug of ours.
        if "clos" not in str(error):
            raise
        raise StoreUnavailable("the connection to Postgres is closed") from None
    except (OSError, TimeoutError, asyncpg.InternalClientError) as error:
        # The last one is asyncpg's for a protocol out of step: a back end killed between two messages leaves one.
        raise StoreUnavailable(f"no answer from Postgres: {type(error).__name__}") from None
    except UnicodeEncodeError:
        raise RowRefused("a text that is not Unicode", _UNTRANSLATABLE_CHARACTER) from None
    except OverflowError:
        raise RowRefused("a number over 64 bits", _OUT_OF_RANGE) from None
