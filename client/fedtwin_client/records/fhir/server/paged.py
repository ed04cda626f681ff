"""Search results on this node's disk, page by page, so that a killed command goes on.

For servers without an export. Each page is a file; after it, the address of the next one is kept.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from fedtwin_client.records.fhir.server.downloads import Folder
from fedtwin_client.records.fhir.server.export import check_types
from fedtwin_client.records.fhir.server.search import pages, search_url
from fedtwin_client.records.fhir.server.web import Web
from fedtwin_protocol.errors import RecordError

_STATE: Final = "search.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Searched:
    """What searches are to find.

    Attributes:
        types: resource types, in this order.
        since: only what changed from then on, as FHIR writes instants.
        filters: further search parameters by type, `Type?name=value&...`.
        count: resources a page.
    """

    types: tuple[str, ...]
    since: str | None = None
    filters: tuple[str, ...] = ()
    count: int = 500


class _State(BaseModel):
    model_config = ConfigDict(extra="forbid")

    request: list[str]
    began: str
    done: int = 0
    files: int = 0
    following: str | None = None


class Search:
    """The searches of one server.

    Args:
        web: to the server.
        folder: for the pages and the state.
        searched: what they are to find.
        told: is told how far it is.

    Raises:
        RecordError: no type is named, or one is none.
    """

    def __init__(
        self, web: Web, folder: Folder, searched: Searched, told: Callable[[str], None]
    ) -> None:
        if not searched.types:
            raise RecordError("name the resource types to search for with --type")
        check_types(searched.types)
        self._web = web
        self._folder = folder
        self._types = searched.types
        self._urls = [_url(web.base, kind, searched) for kind in searched.types]
        self._told = told

    def fetch(self) -> str:
        """Bring every page into the folder, going on with what an earlier try left.

        Returns:
            When the first page was asked for, by this machine's clock.

        Raises:
            RecordError: the server refuses, or its pages cannot be followed.
        """
        state = self._resumed()
        while state.done < len(self._urls):
            kind = self._types[state.done]
            try:
                self._one(kind, state)
            except RecordError:
                if state.following is None:
                    raise
                # Many servers forget a search after some minutes; its first page is always there.
                self._told(f"{kind}: the search of before is no longer there; it starts anew")
                state.following = None
                self._one(kind, state)
            state.done += 1
            state.following = None
            self._keep(state)
        return state.began

    def _one(self, kind: str, state: _State) -> None:
        found = 0
        for bundle, following in pages(self._web, state.following or self._urls[state.done]):
            entries = bundle.get("entry")
            found += len(entries) if isinstance(entries, list) else 0
            state.files += 1
            resources, outcomes = _lines(bundle)
            self._folder.write(f"output-{state.files:06d}-{kind}.ndjson", resources)
            if outcomes:
                self._folder.write(f"error-{state.files:06d}-{kind}.ndjson", outcomes)
            state.following = following
            self._keep(state)
            self._told(f"fetching {kind}: {found:,} resources")

    def _resumed(self) -> _State:
        data = self._folder.read(_STATE)
        try:
            state = None if data is None else _State.model_validate_json(data)
        except ValidationError:
            state = None
        if state is not None and state.request == self._urls:
            self._told("going on with the searches of before")
            return state
        self._folder.empty()
        return _State(request=self._urls, began=self._web.clock.now().isoformat())

    def _keep(self, state: _State) -> None:
        self._folder.write(_STATE, state.model_dump_json().encode())


def _lines(bundle: dict[str, Any]) -> tuple[bytes, bytes]:
    """Each entry's resource on a line, and what the server says of its search.

    What is no resource stands there as it came, to be put aside.
    """
    entries = bundle.get("entry", [])
    if not isinstance(entries, list):
        entries = [bundle]
    found = [
        entry["resource"] if isinstance(entry, dict) and "resource" in entry else entry
        for entry in entries
    ]
    said = [one for one in found if _is_outcome(one)]
    return _joined(one for one in found if not _is_outcome(one)), _joined(said)


def _is_outcome(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("resourceType") == "OperationOutcome"


def _joined(entries: Iterable[Any]) -> bytes:
    lines = (json.dumps(one, separators=(",", ":")) for one in entries)
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")


def _url(base: str, kind: str, searched: Searched) -> str:
    named: list[tuple[str, str]] = []
    if searched.since:
        named.append(("_lastUpdated", f"ge{searched.since}"))
    url = search_url(base, kind, named, searched.count)
    further = [one.partition("?")[2] for one in searched.filters if one.startswith(f"{kind}?")]
    return "&".join([url, *further])
