"""Which drug a FHIR R4 resource speaks of: named in it, contained in it, or described elsewhere.

A Medication without a code of its own, such as an infusion that the pharmacy mixes, is its
ingredients.
"""

from collections.abc import Callable, Iterable

from fedtwin_client.records.codes.concepts import codes_of
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.resources import Found, Resource, list_of
from fedtwin_client.records.subjects import local_address


class Medications:
    """The Medication resources that were seen, by address.

    Args:
        find: all Medications that may be referred to; asked once, at the first reference to one
            that was not learned.
    """

    def __init__(self, find: Callable[[], Iterable[Found]] | None = None) -> None:
        self._find = find
        self._codes: dict[str, list[str]] = {}

    def learn(self, found: Found) -> None:
        """Remember a Medication's codes."""
        codes = _codes(found.resource)
        for reference in (f"Medication/{found.resource.get('id')}", found.address):
            address = local_address(reference, "Medication")
            if address is not None:
                self._codes[address] = codes

    def known(self, reference: str) -> bool:
        """Whether a reference leads to a Medication that was seen."""
        return local_address(reference, "Medication") in self._codes

    def codes(self, resource: Resource) -> list[str]:
        """Codes of the drug that a resource speaks of, best vocabulary first.

        Raises:
            UnusableError: it refers to a Medication that was not seen.
        """
        reference = resource.get("medicationReference")
        written = reference.get("reference") if isinstance(reference, dict) else None
        if not isinstance(written, str):
            return codes_of(resource.get("medicationCodeableConcept"))
        for contained in list_of(resource, "contained"):
            if isinstance(contained, dict) and written == f"#{contained.get('id')}":
                return _codes(contained)
        address = local_address(written, "Medication")
        if address not in self._codes and self._find is not None:
            find, self._find = self._find, None
            for found in find():
                self.learn(found)
        if address is None or address not in self._codes:
            raise UnusableError("refers to a Medication that is not in this import")
        return self._codes[address]


def _codes(medication: Resource) -> list[str]:
    codes = codes_of(medication.get("code"))
    if codes:
        return codes
    ingredients = medication.get("ingredient")
    found = [
        code
        for item in (ingredients if isinstance(ingredients, list) else ())
        if isinstance(item, dict)
        for code in codes_of(item.get("itemCodeableConcept"))
    ]
    return list(dict.fromkeys(found))
