"""Mended HL7 v2 messages as a source: read as the feed that put them aside would have done."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Literal

from fedtwin_client.records.hl7.events import Hl7Reader
from fedtwin_client.records.hl7.files import check_encoding
from fedtwin_client.records.hl7.patients import Whose
from fedtwin_client.records.hl7.text import message_of_text
from fedtwin_client.records.mended import MendedLine
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.report import Recipe
from fedtwin_client.records.source import ByNumber, Desk, OpenSource, Version, check_source_name

KIND = "hl7"


def hl7_recipe(feed: str, whose: Whose, zone: str, encoding: str = "utf-8") -> Recipe:
    """How the messages of a feed are read.

    Args:
        feed: its name.
        whose: which of a patient's numbers counts.
        zone: of times without one.
        encoding: of messages that name no character set.
    """
    settings = {"patients": asdict(whose), "encoding": encoding}
    return Recipe(kind=KIND, source=feed, zone=zone, settings=MappingProxyType(settings))


def hl7_lines(lines: Sequence[MendedLine], recipe: Recipe) -> OpenSource:
    """Mended messages.

    Raises:
        RecordError: the recipe is none of `hl7_recipe`.
    """
    check_source_name(recipe.source)
    check_encoding(str(recipe.settings.get("encoding")))
    return lambda desk: Hl7Lines(lines, recipe, desk)


class Hl7Lines(ByNumber):
    """Reads mended messages.

    Attributes:
        title: what is imported, in words.
        resends: a result may come anew under its old times.
    """

    resends: Literal[True] = True

    def __init__(self, lines: Sequence[MendedLine], recipe: Recipe, desk: Desk) -> None:
        self.title = f"{len(lines)} mended messages from {recipe.source}"
        self._lines = lines
        self._reading = desk.reading
        self._encoding = str(recipe.settings["encoding"])
        whose = recipe.settings.get("patients")
        self._reader = Hl7Reader(
            desk.reading,
            desk.pseudonyms,
            Whose(**whose) if isinstance(whose, dict) else Whose(),
        )

    def versions(self) -> Iterator[Version]:
        """What every message makes."""
        for line in self._lines:
            try:
                message = message_of_text(line.text, line.place, self._encoding)
            except UnusableError as error:
                self._reading.tally.read["message"] += 1
                self._reading.unusable(error, line.place, line.text)
                continue
            yield from self._reader.read(message)
