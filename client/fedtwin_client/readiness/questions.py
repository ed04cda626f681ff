"""Which events are about which feature, and how their values are judged.

One row of the table `questions` is for each code and unit that is stored, for DuckDB to join with.
Unlike a cohort's own questions (`cohort.features`), these also take in values in a unit that does
not convert, to count them.
"""

from typing import Any, Final

import duckdb
import pyarrow as pa

from fedtwin_client.cohort.conversions import StoredUnits, UnitConversion
from fedtwin_client.cohort.selection import Selected
from fedtwin_client.cohort.times import stored_codes
from fedtwin_client.records.codes.analytes import analyte_conversion
from fedtwin_client.records.codes.units import normal_unit
from fedtwin_client.records.events import BIRTH, DEATH
from fedtwin_protocol.contract import Feature

_TABLE: Final = pa.schema(
    [
        ("feature", pa.int32()),
        ("kind", pa.string()),
        ("code", pa.string()),
        ("unit", pa.string()),
        ("convertible", pa.bool_()),
        ("factor", pa.float64()),
        ("shift", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("answers", pa.list_(pa.string())),
        ("days", pa.int32()),
    ]
)
# A category's answer is spelled as in `cohort.features`.
_VIEW: Final = """
CREATE OR REPLACE TEMP VIEW judged AS
SELECT *, CASE
    WHEN kind = 'number' THEN value IS NOT NULL AND value NOT BETWEEN low AND high
    WHEN kind = 'flag' THEN value IS NOT NULL AND value NOT IN (0.0, 1.0)
    WHEN kind = 'category' THEN answer IS NOT NULL AND NOT list_contains(answers, answer)
    ELSE FALSE END AS implausible,
    CASE WHEN kind = 'category' THEN answer IS NOT NULL WHEN kind = 'presence' THEN FALSE
        ELSE value IS NOT NULL END AS has_value
FROM (
    SELECT q.feature, q.kind, q.low, q.high, q.answers, q.days, e.subject_id, e.time,
        e.available_time, e.code, e.text_value, e.numeric_value, e.unit, e.comparator, e.source,
        e.file_row_number AS position,
        q.kind = 'number' AND NOT q.convertible AND e.numeric_value IS NOT NULL AS unknown_unit,
        CASE q.kind
            WHEN 'number' THEN tidy(e.numeric_value * q.factor + q.shift, q.factor, q.shift)
            WHEN 'flag' THEN e.numeric_value END AS value,
        CASE WHEN q.kind = 'category' THEN coalesce(e.text_value,
            CASE WHEN e.numeric_value = floor(e.numeric_value) AND abs(e.numeric_value) < 1e15
                THEN e.numeric_value::BIGINT::VARCHAR ELSE e.numeric_value::VARCHAR END)
            END AS answer
    FROM events AS e
    JOIN questions AS q ON e.code = q.code AND (q.unit IS NULL OR coalesce(e.unit, '') = q.unit)
)
"""
_LIVES: Final = """
CREATE OR REPLACE TEMP TABLE lives AS
SELECT subject_id, min(time) FILTER (code = $birth) AS birth,
    min(time) FILTER (code = $death) AS death
FROM events WHERE code IN ($birth, $death) GROUP BY subject_id
"""
IN_LOOK_BACK: Final = """
judged.time <= c.index_time AND judged.available_time <= c.index_time
    AND (days IS NULL OR judged.time >= c.index_time - to_days(days))
"""
"""Of the view `judged` and the view `chosen AS c`: what a prediction may use."""
USABLE: Final = "(has_value OR kind = 'presence') AND NOT implausible"
"""Of the view `judged`: what answers the question."""


def ask(db: duckdb.DuckDBPyConnection, features: tuple[Feature, ...], stored: StoredUnits) -> None:
    """Make the view `judged`: each event about a feature, with its value in the feature's unit.

    Args:
        db: a connection with the view `events` and the macro `tidy`.
        features: of the contract, in order.
        stored: what the store says of its units.
    """
    rows: list[dict[str, Any]] = []
    for number, feature in enumerate(features):
        asked: dict[str, Any] = {
            "feature": number,
            "kind": feature.kind,
            "days": feature.window_days,
        }
        if feature.kind == "category":
            asked["answers"] = list(feature.categories)
        for code in stored_codes(feature.codes):
            if feature.kind == "number":
                rows += [{**asked, **one} for one in _numbers(feature, code, stored)]
            else:
                rows.append({**asked, "code": code})
    db.register("questions", pa.Table.from_pylist(rows, schema=_TABLE))
    db.execute(_VIEW)


def know_lives(db: duckdb.DuckDBPyConnection) -> None:
    """Make the table `lives`: birth and death of each patient of whom either is known."""
    db.execute(_LIVES, {"birth": BIRTH, "death": DEATH})


def choose(db: duckdb.DuckDBPyConnection, selected: Selected) -> None:
    """Make the view `chosen`: pseudonyms and index dates of a cohort."""
    index = pa.array(selected.index, pa.timestamp("us"))
    db.register("chosen", pa.table({"subject_id": selected.subject_ids, "index_time": index}))


def conversion_of(code: str, unit: str, wanted: str) -> UnitConversion | None:
    """How numbers of a code in a stored unit become another unit's; none: they do not."""
    found = (normal_unit(unit) or unit) if unit else "1"
    convert = analyte_conversion(code, found, normal_unit(wanted) or wanted)
    if convert is None:
        return None
    return UnitConversion(code=code, unit=unit, factor=convert.factor, shift=convert.offset)


def _numbers(feature: Feature, code: str, stored: StoredUnits) -> list[dict[str, Any]]:
    """How numbers of one code become the feature's, for each unit; one for rows without any."""
    assert feature.plausible is not None
    low, high = feature.plausible
    rows: list[dict[str, Any]] = []
    units = dict.fromkeys([*(unit for unit, _ in stored.get(code, ())), ""])
    for unit in units:
        convert = conversion_of(code, unit, feature.unit)
        rows.append(
            {
                "code": code,
                "unit": unit,
                "convertible": convert is not None,
                "factor": None if convert is None else convert.factor,
                "shift": None if convert is None else convert.shift,
                "low": low,
                "high": high,
            }
        )
    return rows
