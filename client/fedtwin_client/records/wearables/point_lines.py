"""Mended data points as a source: read as the import that put them aside would have done."""

from collections.abc import Iterator, Sequence
from types import MappingProxyType

from fedtwin_client.records.mended import MendedLine, in_place_of
from fedtwin_client.records.report import Recipe, Tally
from fedtwin_client.records.resources import parse_json
from fedtwin_client.records.source import ByNumber, Desk, OpenSource, Version
from fedtwin_client.records.wearables.openmhealth import PointReader
from fedtwin_client.records.whole import Whole

KIND = "points"


def point_recipe(source: str, patient: str | None, system: str | None, zone: str) -> Recipe:
    """How data points in files are read.

    Args:
        source: its name.
        patient: whose points they all are; none: each one's `user_id` says so.
        system: whose number that is; none: of this source alone.
        zone: of times without one.
    """
    settings = MappingProxyType({"patient": patient, "system": system})
    return Recipe(kind=KIND, source=source, zone=zone, settings=settings)


def point_lines(lines: Sequence[MendedLine], recipe: Recipe) -> OpenSource:
    """Mended data points."""
    return lambda desk: PointLines(lines, recipe, desk)


class PointLines(ByNumber):
    """Reads mended data points.

    Attributes:
        title: what is imported, in words.
    """

    def __init__(self, lines: Sequence[MendedLine], recipe: Recipe, desk: Desk) -> None:
        self.title = f"{len(lines)} mended data points from {recipe.source}"
        self._lines = lines
        self._settings = recipe.settings
        self._desk = desk

    def versions(self) -> Iterator[Version]:
        """What every data point makes."""
        unheard = Whole(Tally(quarantine=None))
        unheard_reader = self._reader(unheard)
        tally = Whole(self._desk.reading.tally)
        reader = self._reader(tally)
        for line in self._lines:
            before = _read(unheard_reader, unheard, line.before, line)
            after = _read(reader, tally, line.text, line)
            yield from in_place_of((version.origin for version in before), after)

    def _reader(self, tally: Tally) -> PointReader:
        patient, system = self._settings.get("patient"), self._settings.get("system")
        reading = self._desk.reading.at(self._desk.reading.now, tally)
        return PointReader(
            reading,
            self._desk.pseudonyms,
            system if isinstance(system, str) else reading.source,
            patient if isinstance(patient, str) else None,
        )


def _read(reader: PointReader, tally: Whole, text: str, line: MendedLine) -> list[Version]:
    value = parse_json(text.encode("utf-8", "surrogateescape"))
    versions: list[Version] = []
    if isinstance(value, dict):
        versions = list(reader.read(value, line.place))
    else:
        tally.wrong("not a JSON object", line.place)
    tally.end(line.place, text)
    return versions
