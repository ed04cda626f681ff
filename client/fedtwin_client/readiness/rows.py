"""Every row that a gate counts against a feature, for the hospital itself."""

from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import duckdb

from fedtwin_client.cohort.conversions import TIDY
from fedtwin_client.cohort.selection import select_patients
from fedtwin_client.readiness.questions import IN_LOOK_BACK, USABLE, ask, choose, know_lives
from fedtwin_client.store.pieces import PatientColumns
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import ConfigurationError, RecordError
from fedtwin_protocol.study import StudyPlan

_FAILING: Final = {
    "implausible": "implausible",
    "unknown_unit": "unknown_unit",
    "null": "NOT has_value AND NOT unknown_unit AND kind <> 'presence'",
    "future": "time > $now OR available_time > $now",
    "before_birth": "time < birth",
    "after_death": "time > death",
    "duplicates": "copies > 1",
    "comparator": "comparator IS NOT NULL",
}
ROW_GATES: Final = (*_FAILING, "coverage")
"""What rows can be asked for."""
_ROWS: Final = """
SELECT subject_id, time, coalesce(text_value, ''), coalesce(comparator, ''), numeric_value,
    coalesce(unit, ''), source, count(*) OVER ()
FROM (
    SELECT *, count(*) OVER
        (PARTITION BY subject_id, code, time, numeric_value, text_value, unit) AS copies
    FROM judged LEFT JOIN lives USING (subject_id) WHERE feature = $feature
) WHERE {failing}
ORDER BY subject_id, position LIMIT $most
"""
_WITHOUT: Final = f"""
SELECT subject_id, index_time, count(*) OVER () FROM chosen AS c
WHERE NOT EXISTS (
    SELECT 1 FROM judged WHERE judged.feature = $feature AND judged.subject_id = c.subject_id
        AND {IN_LOOK_BACK} AND {USABLE}
) ORDER BY subject_id LIMIT $most
"""  # noqa: S608 - constants


@dataclass(frozen=True, kw_only=True, slots=True)
class FailingRow:
    """One row, or with gate `coverage` one patient.

    Attributes:
        subject_id: the pseudonym.
        time: when it happened, UTC; the index date with gate `coverage`.
        value: as it is stored, with its comparator.
        unit: as it is stored.
        source: where it came from.
    """

    subject_id: int
    time: datetime | None
    value: str = ""
    unit: str = ""
    source: str = ""


def failing_rows(
    timeline: Timeline, plan: StudyPlan, now: datetime, feature: str, gate: str, most: int
) -> tuple[list[FailingRow], int]:
    """The rows of a feature that a gate counts against it, by patient and time.

    Args:
        timeline: the store.
        plan: the study.
        now: aware.
        feature: its name.
        gate: one of `ROW_GATES`.
        most: no more than so many.

    Returns:
        the rows, and how many there are in all.

    Raises:
        ConfigurationError: there is no such feature or gate, or the feature has no rows.
        RecordError: the records cannot be read.
    """
    number = _number(plan, feature, gate)
    moment = now.astimezone(UTC).replace(tzinfo=None)
    try:
        with closing(timeline.connect()) as db:
            db.execute(TIDY)
            columns = PatientColumns(timeline=timeline)
            ask(db, plan.features, columns.units())
            asked: dict[str, Any] = {"feature": number, "most": most}
            if gate == "coverage":
                choose(db, select_patients(columns, plan, moment))
                found = db.execute(_WITHOUT, asked).fetchall()
                rows = [FailingRow(subject_id=row[0], time=row[1]) for row in found]
            else:
                know_lives(db)
                sql = _ROWS.format(failing=_FAILING[gate])
                asked |= {"now": moment} if "$now" in sql else {}
                found = db.execute(sql, asked).fetchall()
                rows = [_row(*row[:-1]) for row in found]
    except duckdb.Error as error:
        raise RecordError(f"the records in {timeline.folder} cannot be read: {error}") from error
    return rows, int(found[0][-1]) if found else 0


def _number(plan: StudyPlan, feature: str, gate: str) -> int:
    names = [one.name for one in plan.features]
    if feature not in names:
        raise ConfigurationError(
            f"study {plan.study} has no feature '{feature}'; it has {', '.join(names)}"
        )
    if gate not in ROW_GATES:
        raise ConfigurationError(
            f"there are no rows for gate '{gate}'; expected one of {', '.join(ROW_GATES)}"
        )
    number = names.index(feature)
    if plan.features[number].kind in {"age", "sex"}:
        kind = plan.features[number].kind
        raise ConfigurationError(f"feature '{feature}' is the patient's {kind}, and has no rows")
    return number


def _row(
    subject_id: int,
    time: datetime | None,
    text: str,
    comparator: str,
    stored: float | None,
    unit: str,
    source: str,
) -> FailingRow:
    shown = text if stored is None else f"{comparator}{stored:.12g}"
    return FailingRow(subject_id=subject_id, time=time, value=shown, unit=unit, source=source)
