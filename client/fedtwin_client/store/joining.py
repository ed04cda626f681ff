"""Putting what came in live together with what lies in the files."""

from dataclasses import dataclass
from typing import Final

import duckdb
import pyarrow as pa

from fedtwin_client.store.staging import SCHEMA

_COLUMNS: Final = ", ".join(SCHEMA.names)
_JOIN: Final = f"""
CREATE TEMP TABLE touched AS
    SELECT DISTINCT subject_id FROM written
        WHERE split_part(source, '#', 1) IN (SELECT origin FROM live_origins)
    UNION SELECT DISTINCT subject_id FROM live_events;
CREATE TEMP TABLE joined AS
    SELECT {_COLUMNS}, row_number() OVER (
        ORDER BY subject_id, time NULLS FIRST, available_time, source, code
    ) - 1 AS file_row_number
    FROM (
        SELECT {_COLUMNS} FROM written
            WHERE subject_id IN (SELECT subject_id FROM touched)
                AND split_part(source, '#', 1) NOT IN (SELECT origin FROM live_origins)
        UNION ALL SELECT {_COLUMNS} FROM live_events
    );
CREATE TEMP VIEW events AS
    SELECT {_COLUMNS}, file_row_number FROM written
        WHERE subject_id NOT IN (SELECT subject_id FROM touched)
    UNION ALL SELECT {_COLUMNS}, file_row_number FROM joined;
"""  # noqa: S608 - constants


@dataclass(frozen=True, kw_only=True, slots=True)
class Live:
    """What came in since the files were written.

    Attributes:
        events: of the newest version of each record, with the columns of the store's schema.
        origins: the records; what the files hold of them is out of date.
    """

    events: pa.Table
    origins: list[str]


def join(db: duckdb.DuckDBPyConnection, live: Live) -> None:
    """Make `events` of what is `written` and what came in since.

    Patients whom nothing live concerns are read as they lie in the files; those of the others are
    put together here, in the same order, with positions of their own.
    """
    db.register("live_events", live.events)
    db.register("live_origins", pa.table({"origin": pa.array(live.origins, pa.string())}))
    db.execute(_JOIN)
