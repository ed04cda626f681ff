"""Whose record it is: from a FHIR reference to a pseudonym.

By default a patient is known by the server's own `Patient/<id>`. With identifier systems (the
hospital's patient numbers) the Patient resources of the import, or of an earlier one, lead from the
reference to that number, so that several sources meet in one patient. Of several systems the first
that a patient has a number of counts, and the others' numbers lead to it.

A link of a Patient (`replaced-by`, `replaces`, `refer`, `seealso`; FHIR R4,
http://hl7.org/fhir/R4/patient.html#links) says that two resources are one person: they get one
pseudonym, and one timeline.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fedtwin_client.records.pseudonyms import Identity, Pseudonyms
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.resources import Found, list_of

Systems = str | Sequence[str] | None
_ID: Final = re.compile(r"[^\s?#|&=]+")  # more than FHIR allows, but no search
_PATIENT: Final = re.compile(r"(?:\A|/)Patient[/?]")
_LINKS: Final = frozenset({"replaced-by", "replaces", "refer", "seealso"})


def local_address(reference: str, kind: str) -> str | None:
    """`<kind>/<id>` of a reference: relative, absolute, versioned or `urn:uuid:`.

    Returns:
        The address, or none if the reference is to something else.
    """
    if reference.startswith(("urn:uuid:", "urn:oid:")):
        return f"{kind}/{reference.rpartition(':')[2]}"
    parts = reference.partition("/_history")[0].rstrip("/").split("/")
    if len(parts) >= 2 and parts[-2] == kind and _ID.fullmatch(parts[-1]):
        return f"{kind}/{parts[-1]}"
    return None


class Subjects:
    """The patients that one server's records speak of.

    Attributes:
        learned: addresses of the Patients that were learned, with the patient behind each.
    """

    def __init__(
        self,
        pseudonyms: Pseudonyms,
        *,
        server: str,
        identifier_system: Systems,
        known: Mapping[str, Identity],
        joins: bool = True,
    ) -> None:
        """Start with the patients of earlier imports.

        Args:
            pseudonyms: gives out subject_ids.
            server: the name of the source; ids of different servers are different patients.
            identifier_system: whose identifier makes the pseudonym, of several the first that a
                patient has; none: the server's own id.
            known: addresses of earlier imports, with the patient behind each.
            joins: whether the source is believed when it says that two patients are one; a device
                that posts a Patient is not.
        """
        self._joins = joins
        self._pseudonyms = pseudonyms
        self._server = server
        named = [identifier_system] if isinstance(identifier_system, str) else identifier_system
        self._systems = tuple(named or ())
        self._known = known
        self.learned: dict[str, Identity] = {}
        self._faults: dict[str, list[str]] = {}
        self._waiting: dict[str, list[tuple[Identity, str, str]]] = defaultdict(list)
        self._unresolved: Counter[str] = Counter()
        self._told: set[Identity] = set()
        self._heard: set[tuple[str, Identity]] = set()
        self._told_before: frozenset[Identity] | None = None

    @property
    def by_own_id(self) -> bool:
        """Whether every reference means the patient whose id it names, whatever is learned."""
        start = f"{self._server}:"
        return not self._systems and all(
            identity == Identity(self._server, key.removeprefix(start))
            for key, identity in self._known.items()
            if key.startswith(start)
        )

    def learn(self, found: Found) -> None:
        """Remember a Patient resource's addresses and links, if it says who the patient is."""
        try:
            identity = self._identity(found)
            others = self._other_numbers(found.resource, identity)
        except UnusableError:
            return  # accounted for when the resource itself is read
        own = found.resource.get("id")
        written = [f"Patient/{own}"] if isinstance(own, str) and own else []
        addresses = [local_address(reference, "Patient") for reference in [*written, found.address]]
        faults = [self._join(other, identity, "") for other in others]
        self._told.add(identity)
        self._heard.add((self._own_key(found), identity))
        for address in addresses:
            if address is not None:
                key = self._key(address)
                self.learned[key] = identity
                for linked, kind, whose in self._waiting.pop(key, ()):
                    self._unresolved[whose] -= 1
                    faults.append(self._join(linked, identity, kind))
        faults += self._follow_links(found, identity)
        self._faults[self._own_key(found)] = [fault for fault in faults if fault is not None]

    def has_learned(self, found: Found) -> bool:
        """Whether there is nothing to learn of a Patient resource that was not learned before."""
        try:
            return (self._own_key(found), self._identity(found)) in self._heard
        except UnusableError:
            return True

    def faults(self, found: Found) -> list[str]:
        """What of a Patient's links and numbers was not followed, in words; told once."""
        key = self._own_key(found)
        unknown = ["a link to a Patient that is not known"] * self._unresolved.pop(key, 0)
        return self._faults.pop(key, []) + unknown

    def of_patient(self, found: Found) -> int:
        """The pseudonym of a Patient resource.

        Raises:
            UnusableError: it does not say who it is.
        """
        return self._pseudonyms.of(self._identity(found))

    def is_replaced(self, found: Found) -> bool:
        """Whether another Patient that is known tells this person's birth, sex and death.

        Raises:
            UnusableError: it does not say who it is.
        """
        identity = self._identity(found)
        whole = self._pseudonyms.whole(identity)
        if whole == identity:
            return False
        if self._told_before is None:
            self._told_before = frozenset(self._known.values())
        return whole in self._told or whole in self._told_before

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
            isinstance(identifier, dict)
            and identifier.get("system") in self._systems
            and identifier.get("value")
        ):
            return self._pseudonyms.of(
                Identity(str(identifier["system"]), str(identifier["value"]))
            )
        raise UnusableError("no patient")

    def _behind(self, written: str) -> Identity:
        asked = written.partition("Patient?identifier=")[2]
        if asked and asked.partition("|")[0] in self._systems:
            return Identity(*asked.split("|", 1))
        address = local_address(written, "Patient")
        if address is None and _PATIENT.search(written):
            raise UnusableError("refers to a patient by a search, or by no address that can be")
        if address is None:
            raise UnusableError("refers to something else than a patient", wrong=False)
        identity = self._at(self._key(address))
        if identity is not None:
            return identity
        if self._systems:
            raise UnusableError("refers to a patient that is not known")
        return Identity(self._server, address)

    def _at(self, key: str) -> Identity | None:
        """The patient at an address, if one of the systems that count knows them."""
        identity = self.learned.get(key) or self._known.get(key)
        if identity is None or (self._systems and identity.system not in self._systems):
            return None
        return identity

    def _identity(self, found: Found) -> Identity:
        if not self._systems:
            own = found.resource.get("id")
            written = f"Patient/{own}" if isinstance(own, str) and own else found.address
            address = local_address(written, "Patient")
            if address is None:
                raise UnusableError("a Patient without an id")
            return Identity(self._server, address)
        for system in self._systems:
            values = _values(found, system)
            if len(values) > 1:
                raise UnusableError(
                    f"expected one identifier of system {system}, found {len(values)}"
                )
            if values:
                return Identity(system, values.pop())
        named = " or ".join(self._systems)
        raise UnusableError(f"expected one identifier of system {named}, found 0")

    def _other_numbers(self, resource: dict[str, Any], identity: Identity) -> list[Identity]:
        """The patient's numbers in the systems that come after."""
        found = []
        for system in self._systems:
            if system != identity.system:
                values = _values_in(resource, system)
                found += [Identity(system, value) for value in values if len(values) == 1]
        return found

    def _join(self, other: Identity, identity: Identity, kind: str) -> str | None:
        """Make two identities one patient; why not, in words, if they are not."""
        whole = self._pseudonyms.whole
        if not self._joins and whole(other) != whole(identity):
            return "a Patient that would make two patients one, which this source is not asked"
        if not kind and whole(other) not in {other, whole(identity)}:
            return f"an identifier of system {other.system} that stands for another patient"
        if kind == "replaces" or (kind == "seealso" and other < identity):
            other, identity = identity, other
        return self._pseudonyms.merge(other, identity)

    def _follow_links(self, found: Found, identity: Identity) -> list[str | None]:
        faults: list[str | None] = []
        links = found.resource.get("link")
        for link in links if isinstance(links, list) else ():
            kind = link.get("type") if isinstance(link, dict) else None
            other = link.get("other") if isinstance(link, dict) else None
            written = other.get("reference") if isinstance(other, dict) else None
            address = local_address(written, "Patient") if isinstance(written, str) else None
            if not isinstance(kind, str) or kind not in _LINKS or address is None:
                faults.append("a link to something else than a Patient")
                continue
            key = self._key(address)
            target = self._at(key)
            if target is None and not self._systems:
                target = Identity(self._server, address)
            if target is None:
                own = self._own_key(found)
                self._waiting[key].append((identity, kind, own))
                self._unresolved[own] += 1
            else:
                faults.append(self._join(identity, target, kind))
        return faults

    def _own_key(self, found: Found) -> str:
        own = found.resource.get("id")
        return self._key(f"Patient/{own}" if isinstance(own, str) and own else found.address)

    def _key(self, address: str) -> str:
        return f"{self._server}:{address}"


def _values(found: Found, system: str) -> set[str]:
    list_of(found.resource, "identifier")
    return _values_in(found.resource, system)


def _values_in(resource: dict[str, Any], system: str) -> set[str]:
    """A patient's numbers of one system, those that were used before left out."""
    return {
        str(item["value"])
        for item in list_of(resource, "identifier")
        if isinstance(item, dict)
        and item.get("system") == system
        and item.get("value")
        and item.get("use") != "old"
    }
