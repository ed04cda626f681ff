"""Importing from a FHIR server: sign in, fetch, import, tidy up; a killed one goes on.

fhir/NAME.key.pem        the node's key for that server        fhir/NAME.json   how far it was read
records/downloads/NAME/  what is being fetched, until it is imported
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedtwin_client.at_rest.files import read_whole, write_whole
from fedtwin_client.at_rest.keyring import keyring_of
from fedtwin_client.node.home import NodeHome
from fedtwin_client.records.fhir.lines import fhir_recipe
from fedtwin_client.records.fhir.server.downloads import Folder
from fedtwin_client.records.fhir.server.export import Asked, Export
from fedtwin_client.records.fhir.server.fetched import LEFT_OUT, fetched
from fedtwin_client.records.fhir.server.keys import (
    Algorithm,
    FhirKey,
    keep_key,
    make_key,
    read_key,
)
from fedtwin_client.records.fhir.server.paged import Search, Searched
from fedtwin_client.records.fhir.server.polling import Polled, PollingDoor
from fedtwin_client.records.fhir.server.signing_in import SignedIn, discover
from fedtwin_client.records.fhir.server.web import Clock, Web
from fedtwin_client.records.source import check_source_name
from fedtwin_client.store.imports import import_source
from fedtwin_client.store.locking import hold
from fedtwin_protocol.errors import ConfigurationError, RecordError

_log = logging.getLogger(__name__)
LAST: Final = "last"
SCOPES: Final = "system/*.read"
_NOT_REMEMBERED: Final = (
    "'--since last' does not count this import, because the server left something out: it would "
    "never be asked for again"
)
_OVERLAP: Final = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True, slots=True)
class FhirServer:
    """A FHIR server, and what is wanted of it.

    Attributes:
        url: its base address.
        name: at this site; ids of two servers do not meet.
        client_id: that the server gave this node; none: it needs no token.
        scopes: asked for.
        ca: certificates of the CA that vouches for it, PEM.
        proxy: `http://host:port` on the way.
        search: fetch by paged search, for servers without an export.
        group: only this group's patients.
        patients: all patients' records rather than the whole system's.
        types: resource types; none: all (an export only).
        filters: `Type?name=value`.
        since: only what changed after; `last`: since the last import.
        page: resources a page of a search.
        systems: whose identifiers make the pseudonym; none: the server's own id.
        zone: of dates without one.
    """

    url: str
    name: str
    client_id: str | None = None
    scopes: str = SCOPES
    ca: Path | None = None
    proxy: str | None = None
    search: bool = False
    group: str | None = None
    patients: bool = True
    types: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    since: str | None = None
    page: int = 500
    systems: Sequence[str] = ()
    zone: str = "UTC"


@dataclass(frozen=True, kw_only=True, slots=True)
class PollSettings:
    """A door that asks a FHIR server for changes, as `doors.yaml` has it.

    Attributes:
        url: the server's base address.
        types: resource types.
        client_id: that the server gave this node; none: it needs no token.
        scopes: asked for.
        ca_file: certificates of the CA that vouches for it, PEM; relative to the node's folder.
        proxy: `http://host:port` on the way.
        systems: whose identifiers make the pseudonym; none: the server's own id.
        every_s: seconds between two rounds.
        page: resources a page.
    """

    url: str
    types: tuple[str, ...]
    client_id: str | None = None
    scopes: str = SCOPES
    ca_file: Path | None = None
    proxy: str | None = None
    systems: tuple[str, ...] = ()
    every_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    page: Annotated[int, Field(gt=0)] = 200


class _Known(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: str
    since: str


def make_fhir_key(home: NodeHome, name: str, algorithm: Algorithm) -> FhirKey:
    """Make the node's key for a server, and keep it.

    Raises:
        ConfigurationError: there is one already, or it cannot be written.
        RecordError: the name is none.
    """
    check_source_name(name)
    key = make_key(algorithm)
    keep_key(_key_file(home, name), key, keyring_of(home.folder))
    return key


def read_fhir_key(home: NodeHome, name: str) -> FhirKey:
    """The node's key for a server.

    Raises:
        ConfigurationError: there is none, or it cannot be used.
    """
    return read_key(_key_file(home, name), keyring_of(home.folder))


def import_from_server(
    home: NodeHome,
    secret: bytes,
    server: FhirServer,
    clock: Clock,
    told: Callable[[str], None],
) -> list[str]:
    """Fetch what a server has, and import it.

    Args:
        home: the node's folder.
        secret: the site's 32 bytes that pseudonyms are made with.
        server: which, and what of it.
        clock: time and waiting.
        told: is told how far it is.

    Returns:
        The report's lines.

    Raises:
        RecordError: the server refuses or breaks off, or nothing can be used; run it again.
        ConfigurationError: a key, a certificate or an option cannot be used.
    """
    check_source_name(server.name)
    keyring = keyring_of(home.folder)
    since = _since(home, server)
    lock = f"fetch-{server.name}.lock"
    with hold(home.records, lock, "fetch"), open_web(home, server, clock, told) as web:
        folder = Folder(home.records / "downloads" / server.name, keyring)
        fetch, finish = _fetcher(web, folder, server, since, told)
        through = fetch()
        told("importing")
        report = import_source(
            fetched(folder, server.name, tuple(server.systems)),
            home.records,
            secret=secret,
            now=clock.now(),
            source=server.name,
            zone=server.zone,
            recipe=fhir_recipe(server.name, tuple(server.systems), server.zone),
        )
        if LEFT_OUT not in report.reasons:
            _remember(home, server, through)
        trouble = [finish(), _NOT_REMEMBERED if LEFT_OUT in report.reasons else None]
    return [*report.lines(), *(f"  {'to know':<14} {said}" for said in trouble if said)]


def open_web(home: NodeHome, server: FhirServer, clock: Clock, told: Callable[[str], None]) -> Web:
    """HTTP to a server, signed in if it wants that.

    Raises:
        RecordError: it cannot be reached, or does not take the node's key.
        ConfigurationError: a key, a certificate or an option cannot be used.
    """
    web = Web(server.url, clock, ca=server.ca, proxy=server.proxy)
    try:
        if server.client_id is not None:
            SignedIn(
                web,
                discover(web),
                key=read_fhir_key(home, server.name),
                client_id=server.client_id,
                scopes=server.scopes,
                told=told,
            )
    except BaseException:
        web.shut()
        raise
    return web


def polling_door(
    home: NodeHome, server: FhirServer, now: Callable[[], datetime], every_s: float = 60.0
) -> PollingDoor:
    """A door that asks a server for changes, from now on or from where it was before.

    Raises:
        RecordError: no type is named, or one is none.
        ConfigurationError: the site key is not at hand.
    """
    check_source_name(server.name)
    if not server.types:
        raise RecordError(f"name the resource types that '{server.name}' is asked for")
    return PollingDoor(
        server.name,
        lambda clock: open_web(home, server, clock, _log.info),
        Folder(home.folder / "fhir" / server.name, keyring_of(home.folder)),
        Polled(
            types=server.types,
            since=_since(home, server) or now().isoformat(timespec="seconds"),
            systems=tuple(server.systems),
            every_s=every_s,
            count=server.page,
        ),
        now,
    )


def opened_poll(
    home: NodeHome, name: str, settings: PollSettings, now: Callable[[], datetime]
) -> PollingDoor:
    """The polling door that settings describe.

    Raises:
        RecordError: no type is named, or one is none.
        ConfigurationError: the site key is not at hand.
    """
    server = FhirServer(
        url=settings.url,
        name=name,
        client_id=settings.client_id,
        scopes=settings.scopes,
        ca=None if settings.ca_file is None else home.folder / settings.ca_file,
        proxy=settings.proxy,
        types=settings.types,
        page=settings.page,
        systems=settings.systems,
    )
    return polling_door(home, server, now, settings.every_s)


def _fetcher(
    web: Web, folder: Folder, server: FhirServer, since: str | None, told: Callable[[str], None]
) -> tuple[Callable[[], str], Callable[[], str | None]]:
    """What fetches (and returns through when), and what tidies up (and returns trouble)."""
    if server.search:
        searched = Searched(
            types=server.types, since=since, filters=server.filters, count=server.page
        )
        search = Search(web, folder, searched, told)

        def through() -> str:
            began = datetime.fromisoformat(search.fetch()) - _OVERLAP
            return began.isoformat(timespec="seconds")

        return through, folder.empty
    asked = Asked(
        group=server.group,
        patients=server.patients,
        types=server.types,
        since=since,
        filters=server.filters,
    )
    export = Export(web, folder, asked, told)
    return lambda: export.fetch().transactionTime, export.finish


def _since(home: NodeHome, server: FhirServer) -> str | None:
    """From when on records are asked for, as FHIR writes instants."""
    if server.since != LAST:
        if server.since is None:
            return None
        try:
            written = datetime.fromisoformat(server.since)
        except ValueError as error:
            raise ConfigurationError(
                "expected --since as a time such as 2026-11-01T00:00:00Z, or 'last', found "
                f"'{server.since}'"
            ) from error
        if written.tzinfo is None:
            raise ConfigurationError(
                f"--since {server.since} names no time zone: write 'Z' or '+01:00' at its end"
            )
        return written.isoformat()
    try:
        data = read_whole(_state_file(home, server.name), keyring_of(home.folder))
        known = _Known.model_validate_json(data)
    except (OSError, ValidationError) as error:
        raise ConfigurationError(
            f"nothing was imported from '{server.name}' yet that '--since last' could go on from: "
            "leave it out the first time"
        ) from error
    if known.url != server.url.rstrip("/"):
        raise ConfigurationError(
            f"'{server.name}' was {known.url} the last time; use another --name for another server"
        )
    return known.since


def _remember(home: NodeHome, server: FhirServer, through: str) -> None:
    known = _Known(url=server.url.rstrip("/"), since=through)
    path = _state_file(home, server.name)
    try:
        write_whole(path, known.model_dump_json().encode(), keyring_of(home.folder))
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror}") from error


def _key_file(home: NodeHome, name: str) -> Path:
    return home.folder / "fhir" / f"{name}.key.pem"


def _state_file(home: NodeHome, name: str) -> Path:
    return home.folder / "fhir" / f"{name}.json"
