"""FHIR files through a view and a mapping as a source: each resource is one record.

A resource replaces what an earlier import made of it, also if the view now makes no row of it: what
was withdrawn, and what its `where` no longer picks, must not live on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fedtwin_client.records.consent import Consent
from fedtwin_client.records.events import Event
from fedtwin_client.records.mended import MendedLine, in_place_of
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.reading import Reading, UnusableError
from fedtwin_client.records.report import Place, Recipe, Tally
from fedtwin_client.records.resources import (
    Found,
    find_files,
    mentions,
    own_id,
    read_resources,
    resources_of_text,
)
from fedtwin_client.records.source import Desk, OpenSource, Version
from fedtwin_client.records.subjects import Subjects
from fedtwin_client.records.tables.mapping import TableMapping, parse_mapping
from fedtwin_client.records.tables.row_events import RowReader
from fedtwin_client.records.tables.rows import Row
from fedtwin_client.records.views.definition import ViewDefinition, parse_view, read_view
from fedtwin_client.records.views.functions import EvaluationError
from fedtwin_client.records.views.running import View
from fedtwin_client.records.whole import Whole
from fedtwin_protocol.errors import RecordError

KIND = "view"


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

    def opened(desk: Desk) -> ViewReader:
        return ViewReader(files, ViewRows(definition, mapping, str(view), desk), desk.reading)

    return opened


def view_recipe(recipe: Recipe, view: Path) -> Recipe:
    """How resources are read through a view.

    Args:
        recipe: that of the mapping.
        view: the ViewDefinition's file.

    Raises:
        RecordError: the view cannot be read any more, or is wrong.
    """
    written = read_view(view).model_dump(mode="json", by_alias=True, exclude_unset=True)
    settings = {**recipe.settings, "view": written, "view_file": str(view)}
    return replace(recipe, kind=KIND, settings=settings)


def view_lines(lines: Sequence[MendedLine], recipe: Recipe) -> OpenSource:
    """Mended resources.

    Raises:
        RecordError: the recipe's view or mapping is wrong.
    """
    name = str(recipe.settings.get("view_file"))
    definition = parse_view(recipe.settings.get("view"), name)
    file = Path(str(recipe.settings.get("file")))
    mapping = parse_mapping(str(recipe.settings.get("mapping")), file)

    def opened(desk: Desk) -> ViewLines:
        return ViewLines(lines, ViewRows(definition, mapping, name, desk), desk.reading)

    return opened


class ViewReader:
    """Reads FHIR files through one view by one mapping.

    Attributes:
        title: what is imported, in words.
        consents: none.
    """

    consents: Mapping[str, Consent] = MappingProxyType({})

    def __init__(self, files: list[Path], rows: "ViewRows", reading: Reading) -> None:
        """Start a reader.

        Args:
            files: the resources.
            rows: the view at work.
            reading: the import's rules and account.
        """
        self.title = f"{len(files)} FHIR files through {rows.title}"
        self._files = files
        self._rows = rows
        self._reading = reading
        reading.tally.tell_apart(files)

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
        for file in self._files:
            for found in read_resources(file, self._reading.tally):
                yield from self._rows.versions(found)
        if not self._rows.fitted:
            what = "that the view can read" if self._rows.unfit else "of the view's type"
            raise RecordError(
                f"found no {self._rows.kind} {what}{self._reading.tally.commonest()}; nothing was "
                "imported, and what came before is still there"
            )


class ViewLines:
    """Reads mended resources as the import that put them aside would have done.

    Attributes:
        title: what is imported, in words.
        consents: none.
    """

    consents: Mapping[str, Consent] = MappingProxyType({})

    def __init__(self, lines: Sequence[MendedLine], rows: "ViewRows", reading: Reading) -> None:
        self.title = f"{len(lines)} mended resources through {rows.title}"
        self._lines = lines
        self._rows = rows
        self._reading = reading

    @property
    def learned(self) -> Mapping[str, Identity]:
        """Addresses under which the lines speak of patients, if the mapping names their server."""
        return {} if self._rows.subjects is None else self._rows.subjects.learned

    def versions(self) -> Iterator[Version]:
        """Every resource of the view's type."""
        for line in self._lines:
            before = [
                self._rows.origin(found)
                for found in resources_of_text(line.before, line.place, Tally(quarantine=None))
                if found.resource["resourceType"] == self._rows.kind
            ]
            found = resources_of_text(line.text, line.place, self._reading.tally)
            after = [version for one in found for version in self._rows.versions(one)]
            yield from in_place_of(before, after)


class ViewRows:
    """A view and a mapping at work: from a resource to its version.

    Attributes:
        title: of both, in words.
        kind: the type of resource that the view reads.
        fitted: resources that it could read.
        unfit: resources that it could not.
    """

    def __init__(
        self, definition: ViewDefinition, mapping: TableMapping, name: str, desk: Desk
    ) -> None:
        """Start at work.

        Args:
            definition: the view.
            mapping: what its columns mean.
            name: the view's, for messages.
            desk: the import's rules, account and pseudonyms.

        Raises:
            RecordError: an expression of the view is wrong.
        """
        self.title = f"{Path(name).name} as {mapping.name}"
        self.kind = definition.resource
        self.fitted = self.unfit = 0
        self._view = View(definition, name, desk.reading.now)
        self._whole = Whole(desk.reading.tally)
        self._reading = desk.reading.at(desk.reading.now, self._whole)
        of_rows = replace(desk, reading=self._reading)
        self._rows = RowReader(mapping, of_rows, drop_repeats=False)
        self._needed = mapping.needed()

    @property
    def subjects(self) -> Subjects | None:
        """The patients of the server that the mapping names; none if it names none."""
        return self._rows.subjects

    def origin(self, found: Found) -> str:
        """The record that a resource is."""
        return f"{self._reading.source}:{self.kind}/{own_id(found)}"

    def versions(self, found: Found) -> Iterator[Version]:
        """The version of a resource; nothing for other types."""
        kind = found.resource["resourceType"]
        self._reading.tally.read[kind] += 1
        if kind != self.kind:
            reason = f"resource type {kind[:40]} is not read"
            self._reading.tally.skip(reason, found.place)
            return
        events = self._events(found)
        self._whole.end(found.place, found.resource)
        updated = self._updated(found.resource)
        yield Version(origin=self.origin(found), updated=updated, events=events)

    def _events(self, found: Found) -> list[Event]:
        try:
            rows = self._view.rows(found.resource)
        except EvaluationError as error:
            self.unfit += 1
            self._whole.wrong(f"does not fit the view: {error}", found.place)
            return []
        self.fitted += 1
        if not rows:
            self._reading.tally.skip("the view makes no row of it", found.place)
        events: list[Event] = []
        for number, cells in enumerate(rows):
            self._reading.tally.read["rows"] += 1
            row = self._row(found.place, cells)
            try:
                events += self._rows.events(row, f"{self.origin(found)}#{number}")
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
