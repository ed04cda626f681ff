"""Mended FHIR resources as a source: read as the import that put them aside would have done."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from fedtwin_client.records.consent import Consent
from fedtwin_client.records.fhir import LOOKED_UP, FhirReader
from fedtwin_client.records.fhir_files import check_server
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.report import Place, Recipe, Tally
from fedtwin_client.records.resources import resources_of_text
from fedtwin_client.records.source import Desk, OpenSource, Version
from fedtwin_client.records.subjects import Subjects, Systems

KIND = "fhir"
Line = tuple[Place, str]


def fhir_recipe(server: str, systems: Systems, zone: str) -> Recipe:
    """How FHIR records of a server are read.

    Args:
        server: its name at this site.
        systems: whose identifiers make the pseudonym; none: the server's own id.
        zone: of dates without one.
    """
    named = [systems] if isinstance(systems, str) else list(systems or ())
    return Recipe(
        kind=KIND, source=server, zone=zone, settings=MappingProxyType({"systems": named})
    )


def fhir_lines(lines: Sequence[Line], recipe: Recipe) -> OpenSource:
    """Mended lines, each with the place where it came from.

    Raises:
        RecordError: the recipe's name of the server is none.
    """
    check_server(recipe.source)
    return lambda desk: FhirLines(lines, recipe, desk)


class FhirLines:
    """Reads mended lines.

    Attributes:
        title: what is imported, in words.
    """

    def __init__(self, lines: Sequence[Line], recipe: Recipe, desk: Desk) -> None:
        self.title = f"{len(lines)} mended lines from {recipe.source}"
        self._lines = lines
        self._tally = desk.reading.tally
        systems = recipe.settings.get("systems")
        self._subjects = Subjects(
            desk.pseudonyms,
            server=recipe.source,
            identifier_system=[str(one) for one in systems] if isinstance(systems, list) else None,
            known=desk.known,
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
        for place, text in self._lines:
            for found in resources_of_text(text, place, Tally(quarantine=None)):
                if found.resource["resourceType"] in LOOKED_UP and not found.deleted:
                    self._reader.learn(found)
        for place, text in self._lines:
            for found in resources_of_text(text, place, self._tally):
                yield from self._reader.read(found)
