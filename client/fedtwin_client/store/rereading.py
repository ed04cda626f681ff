"""Mended lines as a source, by the recipe of the import or the door that put them aside.

What came in live is not undone by a line that is older: where a record's newest version is known to
have been changed after the line's, it stays, and that is counted.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import duckdb

from fedtwin_client.records import (
    fhir_lines,
    hl7_lines,
    message_lines,
    point_lines,
    table_lines,
)
from fedtwin_client.records.consent import Consent
from fedtwin_client.records.events import BIRTH, SEX
from fedtwin_client.records.mended import MendedLine
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.report import Recipe, Tally
from fedtwin_client.records.source import Desk, OpenSource, Source, Version
from fedtwin_client.store.tail import FILE, OUTDATED, Tail
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
        opening = table_lines.table_lines(lines, recipe, lambda source: _traits(store, source))
    elif recipe.kind == _VIEW:
        from fedtwin_client.records.views.files import view_lines  # noqa: PLC0415 - FHIRPath

        opening = view_lines(lines, recipe)
    else:
        opening = _OPENERS[recipe.kind](lines, recipe)
    return lambda desk: _NotOlder(opening(desk), store, desk)


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


class _NotOlder:
    """A source without versions that are older than those that came in live."""

    def __init__(self, source: Source, store: Path, desk: Desk) -> None:
        self._source = source
        self._store = store
        self._tally: Tally = desk.reading.tally

    @property
    def title(self) -> str:
        return self._source.title

    @property
    def learned(self) -> Mapping[str, Identity]:
        return self._source.learned

    @property
    def consents(self) -> Mapping[str, Consent]:
        return self._source.consents

    def versions(self) -> Iterator[Version]:
        if not (self._store / FILE).exists():
            yield from self._source.versions()
            return
        with Tail(self._store) as tail:
            for version in self._source.versions():
                newest = tail.changed(version.origin)
                if newest and version.updated and newest > version.updated:
                    self._tally.reasons[OUTDATED] += 1
                else:
                    yield version


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
