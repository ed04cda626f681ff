"""Mended FHIR resources as a source: read as the import that put them aside would have done."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from fedtwin_client.records.consent import Consent
from fedtwin_client.records.fhir.events import LOOKED_UP, FhirReader
from fedtwin_client.records.mended import MendedLine, in_place_of
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.report import Place, Recipe, Tally
from fedtwin_client.records.resources import Found, own_id, resources_of_text
from fedtwin_client.records.source import Desk, OpenSource, Version, check_source_name
from fedtwin_client.records.subjects import Subjects, Systems

KIND = "fhir"


def fhir_recipe(server: str, systems: Systems, zone: str, *, joins: bool = True) -> Recipe:
    """How FHIR records of a server are read.

    Args:
        server: its name at this site.
        systems: whose identifiers make the pseudonym; none: the server's own id.
        zone: of dates without one.
        joins: whether it is believed when it says that two patients are one.
    """
    named = [systems] if isinstance(systems, str) else list(systems or ())
    settings = MappingProxyType({"systems": named, "joins": joins})
    return Recipe(kind=KIND, source=server, zone=zone, settings=settings)


def fhir_lines(lines: Sequence[MendedLine], recipe: Recipe) -> OpenSource:
    """Mended lines, each with the place where it came from.

    Raises:
        RecordError: the recipe's name of the server is none.
    """
    check_source_name(recipe.source)
    return lambda desk: FhirLines(lines, recipe, desk)


class FhirLines:
    """Reads mended lines.

    Attributes:
        title: what is imported, in words.
    """

    def __init__(self, lines: Sequence[MendedLine], recipe: Recipe, desk: Desk) -> None:
        self.title = f"{len(lines)} mended lines from {recipe.source}"
        self._lines = lines
        self._source = recipe.source
        self._tally = desk.reading.tally
        systems = recipe.settings.get("systems")
        self._subjects = Subjects(
            desk.pseudonyms,
            server=recipe.source,
            identifier_system=[str(one) for one in systems] if isinstance(systems, list) else None,
            known=desk.known,
            joins=recipe.settings.get("joins") is not False,
        )
        self._reader = FhirReader(desk.reading, self._subjects)

    @property
    def learned(self) -> Mapping[str, Identity]:
        """Addresses under which the lines speak of patients."""
        return self._subjects.learned

    @property
    def consents(self) -> Mapping[str, Consent]:
        """The Consents that were read, by origin."""
        return self._reader.consents

    def versions(self) -> Iterator[Version]:
        """Every resource of a type that is read."""
        for line in self._lines:
            for found in _found(line.text, line.place):
                if found.resource["resourceType"] in LOOKED_UP and not found.deleted:
                    self._reader.learn(found)
        for line in self._lines:
            before = [
                f"{self._source}:{found.resource['resourceType']}/{own_id(found)}"
                for found in _found(line.before, line.place)
            ]
            after: list[Version] = []
            for found in resources_of_text(line.text, line.place, self._tally):
                after += self._reader.read(found)
            yield from in_place_of(before, after)


def _found(text: str, place: Place) -> Iterator[Found]:
    return resources_of_text(text, place, Tally(quarantine=None))
