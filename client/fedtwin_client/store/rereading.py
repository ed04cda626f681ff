"""Mended lines as a source, by the recipe of the import or the door that put them aside."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import duckdb

from fedtwin_client.records.events import BIRTH, SEX
from fedtwin_client.records.fhir import lines as fhir_lines
from fedtwin_client.records.hl7 import lines as hl7_lines
from fedtwin_client.records.mended import MendedLine
from fedtwin_client.records.report import Recipe
from fedtwin_client.records.source import OpenSource
from fedtwin_client.records.streams import message_lines
from fedtwin_client.records.tables import table_lines
from fedtwin_client.records.wearables import point_lines
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

_Lines = Sequence[MendedLine]
_VIEW: Final = "view"
_OPENERS: Final[Mapping[str, Callable[[_Lines, Recipe], OpenSource]]] = {
    fhir_lines.KIND: fhir_lines.fhir_lines,
    hl7_lines.KIND: hl7_lines.hl7_lines,
    message_lines.KIND: message_lines.message_lines,
    point_lines.KIND: point_lines.point_lines,
}
KINDS: Final = frozenset({*_OPENERS, table_lines.KIND, _VIEW})
"""Of recipes whose lines can be read again."""
_TRAITS: Final = """
SELECT source, subject_id, code, time, text_value FROM events
    WHERE code IN ($birth, $sex) AND starts_with(source, $start)
"""


def opened_again(lines: _Lines, recipe: Recipe, store: Path) -> OpenSource:
    """Mended lines as a source.

    Args:
        lines: of one recipe.
        recipe: of a kind that is among `KINDS`.
        store: the timeline store's folder.

    Raises:
        RecordError: the recipe cannot be followed.
    """
    if recipe.kind == table_lines.KIND:
        return table_lines.table_lines(lines, recipe, lambda source: _traits(store, source))
    if recipe.kind == _VIEW:
        from fedtwin_client.records.views.files import view_lines  # noqa: PLC0415 - FHIRPath

        return view_lines(lines, recipe)
    return _OPENERS[recipe.kind](lines, recipe)


def trusted(recipe: Recipe) -> Recipe:
    """The recipe of a feed that may say that two numbers are one patient.

    Raises:
        RecordError: it is of another source, which says no such thing, or is never believed.
    """
    patients = recipe.settings.get("patients")
    if recipe.kind != hl7_lines.KIND or not isinstance(patients, dict):
        raise RecordError(
            f"only HL7 v2 messages can be replayed with merges, and {recipe.source} sends none: "
            "replay its lines by themselves"
        )
    return replace(recipe, settings={**recipe.settings, "patients": {**patients, "merges": True}})


def _traits(store: Path, source: str) -> list[table_lines.Trait]:
    """What the rows of a table have said of patients' birth and sex."""
    try:
        db = Timeline.open(store).connect()
    except RecordError:
        return []  # nothing was imported yet
    try:
        rows = db.execute(_TRAITS, {"birth": BIRTH, "sex": SEX, "start": f"{source}/"}).fetchall()
    except duckdb.Error as error:
        raise RecordError(f"cannot read {store}: {error}") from error
    finally:
        db.close()
    return [
        table_lines.Trait(
            source=origin,
            subject=int(subject),
            born=_aware(time) if code == BIRTH else None,
            sex=text if code == SEX else None,
        )
        for origin, subject, code, time, text in rows
    ]


def _aware(time: datetime | None) -> datetime | None:
    return None if time is None else time.replace(tzinfo=UTC)
