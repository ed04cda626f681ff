"""Whose record it is: from a FHIR reference to a pseudonym.

By default a patient is known by the server's own `Patient/<id>`. With an identifier system (the
hospital's patient number) the Patient resources of the import, or of an earlier one, lead from the
reference to that number, so that several sources meet in one patient.
"""

from collections.abc import Mapping
from typing import Any

from fedtwin_client.records.pseudonyms import Identity, Pseudonyms
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.resources import Found, list_of


def local_address(reference: str, kind: str) -> str | None:
    """`<kind>/<id>` of a reference: relative, absolute, versioned or `urn:uuid:`.

    Returns:
        The address, or none if the reference is to something else.
    """
    if reference.startswith(("urn:uuid:", "urn:oid:")):
        return f"{kind}/{reference.rpartition(':')[2]}"
    parts = reference.partition("/_history")[0].rstrip("/").split("/")
    if len(parts) >= 2 and parts[-2] == kind and parts[-1]:
        return f"{kind}/{parts[-1]}"
    return None


class Subjects:
    """The patients that one server's records speak of."""

    def __init__(
        self,
        pseudonyms: Pseudonyms,
        *,
        server: str,
        identifier_system: str | None,
        known: Mapping[str, Identity],
    ) -> None:
        """Start with the patients of earlier imports.

        Args:
            pseudonyms: gives out subject_ids.
            server: the name of the source; ids of different servers are different patients.
            identifier_system: whose identifier makes the pseudonym; none: the server's own id.
            known: addresses of earlier imports, with the patient behind each.
        """
        self._pseudonyms = pseudonyms
        self._server = server
        self._system = identifier_system
        self._known = known
        self.learned: dict[str, Identity] = {}

    @property
    def by_own_id(self) -> bool:
        """Whether every reference means the patient whose id it names, whatever is learned."""
        start = f"{self._server}:"
        return self._system is None and all(
            identity == Identity(self._server, key.removeprefix(start))
            for key, identity in self._known.items()
            if key.startswith(start)
        )

    def learn(self, found: Found) -> None:
        """Remember a Patient resource's addresses, if it says who the patient is."""
        try:
            identity = self._identity(found)
        except UnusableError:
            return  # accounted for when the resource itself is read
        own = found.resource.get("id")
        written = [f"Patient/{own}"] if isinstance(own, str) and own else []
        for reference in [*written, found.address]:
            address = local_address(reference, "Patient")
            if address is not None:
                self.learned[self._key(address)] = identity

    def of_patient(self, found: Found) -> int:
        """The pseudonym of a Patient resource.

        Raises:
            UnusableError: it does not say who it is.
        """
        return self._pseudonyms.of(self._identity(found))

    def of(self, reference: Any) -> int:
        """The pseudonym behind a resource's `subject`.

        Raises:
            UnusableError: there is none, it is no patient, or the patient is not known.
        """
        if not isinstance(reference, dict):
            raise UnusableError("no patient")
        written = reference.get("reference")
        if isinstance(written, str) and written:
            return self._pseudonyms.of(self._behind(written))
        identifier = reference.get("identifier")
        if (
            self._system is not None
            and isinstance(identifier, dict)
            and identifier.get("system") == self._system
            and identifier.get("value")
        ):
            return self._pseudonyms.of(Identity(self._system, str(identifier["value"])))
        raise UnusableError("no patient")

    def _behind(self, written: str) -> Identity:
        asked = written.partition("Patient?identifier=")[2]
        if asked and self._system is not None and asked.startswith(f"{self._system}|"):
            return Identity(self._system, asked.partition("|")[2])
        address = local_address(written, "Patient")
        if address is None:
            raise UnusableError("refers to something else than a patient", wrong=False)
        key = self._key(address)
        identity = self.learned.get(key) or self._known.get(key)
        if identity is not None and (self._system is None or identity.system == self._system):
            return identity
        if self._system is not None:
            raise UnusableError("refers to a patient that is not known")
        return Identity(self._server, address)

    def _identity(self, found: Found) -> Identity:
        if self._system is None:
            own = found.resource.get("id")
            written = f"Patient/{own}" if isinstance(own, str) and own else found.address
            address = local_address(written, "Patient")
            if address is None:
                raise UnusableError("a Patient without an id")
            return Identity(self._server, address)
        values = {
            str(item["value"])
            for item in list_of(found.resource, "identifier")
            if isinstance(item, dict)
            and item.get("system") == self._system
            and item.get("value")
            and item.get("use") != "old"
        }
        if len(values) != 1:
            raise UnusableError(
                f"expected one identifier of system {self._system}, found {len(values)}"
            )
        return Identity(self._system, values.pop())

    def _key(self, address: str) -> str:
        return f"{self._server}:{address}"
