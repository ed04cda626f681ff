"""Which events are about which feature, and how their values are judged.

One row of the table `questions` is for each code and unit that is stored, for DuckDB to join with.
Unlike a cohort's own questions (`cohort.features`), these also take in values in a unit that does
not convert, to count them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import duckdb
import pyarrow as pa

from fedtwin_client.cohort.selection import Selected
from fedtwin_client.cohort.times import stored_codes
from fedtwin_client.records.analytes import analyte_conversion
from fedtwin_client.records.events import BIRTH, DEATH
from fedtwin_client.records.units import normal_unit
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
_STORED: Final = """
SELECT code, coalesce(unit, ''), coalesce(src_unit, ''), count(*), count(numeric_value) FROM events
WHERE code IN (SELECT unnest($codes::VARCHAR[])) GROUP BY ALL ORDER BY ALL
"""
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


@dataclass(kw_only=True, slots=True)
class Stored:
    """What is stored about one feature.

    Attributes:
        rows: events with one of its codes.
        null: without a value of the kind that is asked for.
        unknown_unit: numbers in a unit that does not convert.
        converted: numbers that were written in another unit.
    """

    rows: int = 0
    null: int = 0
    unknown_unit: int = 0
    converted: int = 0


@dataclass(kw_only=True, slots=True)
class _Unit:
    """One code in one unit, as it is stored."""

    code: str
    unit: str
    rows: int = 0
    numbers: int = 0
    written: dict[str, int] = field(default_factory=dict)


def ask(db: duckdb.DuckDBPyConnection, features: tuple[Feature, ...]) -> list[Stored]:
    """Make the view `judged`, and count what needs no value.

    The view has each event about a feature, with its value in the feature's unit.

    Args:
        db: a connection with the view `events` and the macro `tidy`.
        features: of the contract, in order.

    Returns:
        what is stored about each feature, in their order.
    """
    stored = _stored(db, features)
    rows: list[dict[str, Any]] = []
    counts = [Stored() for _ in features]
    for number, feature in enumerate(features):
        asked: dict[str, Any] = {
            "feature": number,
            "kind": feature.kind,
            "days": feature.window_days,
        }
        if feature.kind == "category":
            asked["answers"] = list(feature.categories)
        codes = stored_codes(feature.codes) if feature.codes else []
        for one in (unit for code in codes for unit in stored.get(code, ())):
            counts[number].rows += one.rows
            if feature.kind == "number":
                rows.append({**asked, **_converted(feature, one, counts[number])})
            elif feature.kind == "flag":
                counts[number].null += one.rows - one.numbers
        if feature.kind != "number":
            rows += [{**asked, "code": code} for code in codes]
    db.register("questions", pa.Table.from_pylist(rows, schema=_TABLE))
    db.execute(_VIEW)
    return counts


def know_lives(db: duckdb.DuckDBPyConnection) -> None:
    """Make the table `lives`: birth and death of each patient of whom either is known."""
    db.execute(_LIVES, {"birth": BIRTH, "death": DEATH})


def choose(db: duckdb.DuckDBPyConnection, selected: Selected) -> None:
    """Make the view `chosen`: pseudonyms and index dates of a cohort."""
    index = pa.array(selected.index, pa.timestamp("us"))
    db.register("chosen", pa.table({"subject_id": selected.subject_ids, "index_time": index}))


def _converted(feature: Feature, one: _Unit, counts: Stored) -> dict[str, Any]:
    """How numbers of one code in one unit become the feature's, counting as it goes."""
    assert feature.plausible is not None
    wanted = normal_unit(feature.unit) or feature.unit
    found = (normal_unit(one.unit) or one.unit) if one.unit else "1"
    convert = analyte_conversion(one.code, found, wanted)
    counts.null += one.rows - one.numbers
    if convert is None:
        counts.unknown_unit += one.numbers
    else:
        for written, numbers in one.written.items():
            if (normal_unit(written) or written or found) != wanted:
                counts.converted += numbers
    return {
        "code": one.code,
        "unit": one.unit,
        "convertible": convert is not None,
        "factor": None if convert is None else convert.factor,
        "shift": None if convert is None else convert.offset,
        "low": feature.plausible[0],
        "high": feature.plausible[1],
    }


def _stored(
    db: duckdb.DuckDBPyConnection, features: Iterable[Feature]
) -> dict[str, tuple[_Unit, ...]]:
    codes = sorted({code for one in features for code in stored_codes(one.codes)})
    found: dict[tuple[str, str], _Unit] = {}
    for code, unit, written, rows, numbers in db.execute(_STORED, {"codes": codes}).fetchall():
        one = found.setdefault((code, unit), _Unit(code=code, unit=unit))
        one.rows += int(rows)
        one.numbers += int(numbers)
        one.written[written] = one.written.get(written, 0) + int(numbers)
    by_code: dict[str, tuple[_Unit, ...]] = {}
    for (code, _), one in found.items():
        by_code[code] = (*by_code.get(code, ()), one)
    return by_code
