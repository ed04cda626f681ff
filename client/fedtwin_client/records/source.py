"""What every source of records is to the store: an iterator of versions of records.

An adapter reads one kind of source (FHIR, HL7 v2, OMOP, tables, ...). It checks and converts while
it reads, accounts in the import's tally for everything that it does not use, and knows nothing of
the store. A version replaces what earlier ones of the same origin made, also if it makes nothing.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Literal, Protocol, runtime_checkable

from fedtwin_client.records.consent import Consent
from fedtwin_client.records.events import Event
from fedtwin_client.records.pseudonyms import Identity, Pseudonyms
from fedtwin_client.records.reading import Reading
from fedtwin_protocol.errors import RecordError

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,60}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """One version of a record, with the events it makes.

    Attributes:
        origin: the record, `<source>:<what>/<id>` without '#'; its newest version replaces all
            earlier ones. `<origin>#<part>`, such as a row of a table: that part alone is replaced.
        updated: when the source says it was last changed; none if it does not.
        events: what it makes, perhaps nothing; their `source` is `<origin>#<part>`. It is gone
            through once, before the next version is asked for.
    """

    origin: str
    updated: datetime | None
    events: Iterable[Event]


class Source(Protocol):
    """Records of one source, opened for one import."""

    @property
    def title(self) -> str:
        """What is imported, in words, for the store's history."""

    @property
    def learned(self) -> Mapping[str, Identity]:
        """Addresses (`<server>:Patient/<id>`) under which the source speaks of patients."""

    @property
    def consents(self) -> Mapping[str, Consent]:
        """What patients said of research, by origin."""

    def versions(self) -> Iterator[Version]:
        """Every record, once; `learned` and `consents` are complete when it ends.

        Raises:
            RecordError: nothing of it can be used, or it cannot be read to its end; nothing is
                imported.
        """


@runtime_checkable
class ResendingSource(Source, Protocol):
    """A source that may send a value anew under the time of the value before.

    Attributes:
        resends: true.
    """

    resends: Literal[True]


class ReadAgainError(Exception):
    """A source found late what it had to know before; the import starts anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Desk:
    """What an import lends to the source that it opens.

    Attributes:
        reading: the rules, the time and the account.
        pseudonyms: gives out subject_ids.
        known: addresses of earlier imports, with the patient behind each.
        may_start_anew: whether the source may raise `ReadAgainError`, and so need not look for what
            it hardly ever finds; it is then opened once more, and may not.
    """

    reading: Reading
    pseudonyms: Pseudonyms
    known: Mapping[str, Identity]
    may_start_anew: bool = False


OpenSource = Callable[[Desk], Source]


class ByNumber:
    """What a source inherits that names patients by their own numbers, and holds no Consents.

    Attributes:
        learned: nothing.
        consents: none.
    """

    learned: Mapping[str, Identity] = MappingProxyType({})
    consents: Mapping[str, Consent] = MappingProxyType({})


def check_source_name(name: str) -> None:
    """Refuse a name of a source that could not stand in an event's origin.

    Raises:
        RecordError: it holds something else than a-z, 0-9 and '-'.
    """
    if not _NAME.match(name):
        raise RecordError(f"expected a server name of a-z, 0-9 and '-', found '{name}'")
