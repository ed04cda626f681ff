"""FHIR files through a view and a mapping as a source: each resource is one record.

A resource replaces what an earlier import made of it, also if the view now makes no row of it: what
was withdrawn, and what its `where` no longer picks, must not live on.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fedtwin_client.records.consent import Consent
from fedtwin_client.records.events import Event
from fedtwin_client.records.mapping import TableMapping
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.report import Place
from fedtwin_client.records.resources import Found, find_files, mentions, own_id, read_resources
from fedtwin_client.records.row_events import RowReader
from fedtwin_client.records.rows import Row
from fedtwin_client.records.source import Desk, OpenSource, Version
from fedtwin_client.records.views.definition import ViewDefinition, read_view
from fedtwin_client.records.views.functions import EvaluationError
from fedtwin_client.records.views.running import View
from fedtwin_protocol.errors import RecordError


def view_files(path: Path, mapping: TableMapping, view: Path) -> OpenSource:
    """FHIR records in files, as the rows of a view that a mapping gives meaning to.

    Args:
        path: a file or a folder.
        mapping: what the view's columns mean.
        view: the ViewDefinition's file.

    Raises:
        RecordError: there is no such file, the view is wrong, or it lacks a column that the mapping
            names.
    """
    definition = read_view(view)
    _check_columns(definition, mapping, view)
    files = find_files([path])
    return lambda desk: ViewReader(files, mapping, definition, view, desk)


class ViewReader:
    """Reads FHIR files through one view by one mapping.

    Attributes:
        title: what is imported, in words.
        consents: none.
    """

    consents: Mapping[str, Consent] = MappingProxyType({})

    def __init__(
        self,
        files: list[Path],
        mapping: TableMapping,
        definition: ViewDefinition,
        view: Path,
        desk: Desk,
    ) -> None:
        """Start a reader.

        Args:
            files: the resources.
            mapping: what the view's columns mean.
            definition: the view.
            view: its file, for messages.
            desk: the import's rules, account and pseudonyms.

        Raises:
            RecordError: an expression of the view is wrong.
        """
        self.title = f"{len(files)} FHIR files through {view.name} as {mapping.name}"
        self._files = files
        self._view = View(definition, str(view), desk.reading.now)
        self._reading = desk.reading
        self._rows = RowReader(mapping, desk, drop_repeats=False)
        self._needed = mapping.needed()
        self._fitted = 0
        self._unfit = 0

    @property
    def learned(self) -> Mapping[str, Identity]:
        """Addresses under which the files speak of patients, if the mapping names their server."""
        return {} if self._rows.subjects is None else self._rows.subjects.learned

    def versions(self) -> Iterator[Version]:
        """Every resource of the view's type.

        Raises:
            RecordError: a file cannot be read, or none holds a resource that the view can read.
        """
        if self._rows.subjects is not None:
            for file in self._files:
                for found in mentions(file, ("Patient",)):
                    self._rows.subjects.learn(found)
        kind = self._view.definition.resource
        for file in self._files:
            for found in read_resources(file, self._reading.tally):
                self._reading.tally.read[found.resource["resourceType"]] += 1
                if found.resource["resourceType"] == kind:
                    yield self._version(found)
                else:
                    other = found.resource["resourceType"][:40]
                    self._reading.tally.skip(f"resource type {other} is not read", found.place)
        if not self._fitted:
            what = "that the view can read" if self._unfit else "of the view's type"
            raise RecordError(
                f"found no {kind} {what}{self._reading.tally.commonest()}; nothing was imported, "
                "and what came before is still there"
            )

    def _version(self, found: Found) -> Version:
        origin = f"{self._reading.source}:{self._view.definition.resource}/{own_id(found)}"
        return Version(
            origin=origin,
            updated=self._updated(found.resource),
            events=self._events(found, origin),
        )

    def _events(self, found: Found, origin: str) -> list[Event]:
        try:
            rows = self._view.rows(found.resource)
        except EvaluationError as error:
            self._unfit += 1
            reason = f"does not fit the view: {error}"
            self._reading.tally.put_aside(reason, found.place, found.resource)
            return []
        self._fitted += 1
        if not rows:
            self._reading.tally.skip("the view makes no row of it", found.place)
        events: list[Event] = []
        for number, cells in enumerate(rows):
            self._reading.tally.read["rows"] += 1
            row = self._row(found.place, cells)
            try:
                events += self._rows.events(row, f"{origin}#{number}")
            except UnusableError as error:
                self._reading.unusable(error, row.place, row.cells)
        return events

    def _row(self, place: Place, cells: dict[str, Any]) -> Row:
        return Row(place, {name: _spell(cells[name]) for name in self._needed})

    def _updated(self, resource: dict[str, Any]) -> datetime | None:
        meta = resource.get("meta")
        written = meta.get("lastUpdated") if isinstance(meta, dict) else None
        try:
            return self._reading.moment(written).start if written else None
        except UnusableError:
            return None


def _check_columns(definition: ViewDefinition, mapping: TableMapping, view: Path) -> None:
    columns = {column.name: column for column in definition.columns()}
    absent = [name for name in mapping.needed() if name not in columns]
    if absent:
        raise RecordError(
            f"the mapping names the columns {', '.join(absent)}, which the view {view} lacks; it "
            f"has: {', '.join(columns)}"
        )
    lists = [name for name in mapping.needed() if columns[name].collection]
    if lists:
        raise RecordError(
            f"the column {lists[0]} of the view {view} holds several values ('collection'), and a "
            "mapping reads one; use forEach in the view, so that each has its row"
        )


def _spell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).strip()
