"""Bulk Data export (HL7 Bulk Data Access 2.0, http://hl7.org/fhir/uv/bulkdata/export.html).

1. Kick-off: `$export` of the system, all patients or a group; the server answers with an address
   that tells how far it is.
2. Asking that address until the manifest is there.
3. Fetching every file of the manifest, counted against it.
4. After the import: telling the server that its files can go.

Where it stands is kept in a file beside the downloads, so that a killed command goes on.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fedtwin_client.records.fhir.server.addresses import origin_of, refuse_inward, resolved, shown
from fedtwin_client.records.fhir.server.downloads import Download, Folder, GoneError
from fedtwin_client.records.fhir.server.web import (
    JSON,
    Answer,
    Web,
    outcome_of,
    refusal,
    retry_after,
)
from fedtwin_protocol.errors import RecordError

_STATE: Final = "export.json"
_FIRST_LOOK_S: Final = 2.0
_RAREST_LOOK_S: Final = 60.0
_LONGEST: Final = timedelta(hours=48)
_MOST_PAGES: Final = 10_000
_ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}\Z")
_TYPE: Final = re.compile(r"[A-Z][A-Za-z]{1,59}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What an export is to hold.

    Attributes:
        group: the group's id; none: see `patients`.
        patients: all patients (`Patient/$export`) rather than the whole system.
        types: resource types; none: all.
        since: only what changed after, as FHIR writes instants.
        filters: `_typeFilter` queries.
    """

    group: str | None = None
    patients: bool = True
    types: tuple[str, ...] = ()
    since: str | None = None
    filters: tuple[str, ...] = ()

    def url(self, base: str) -> str:
        """The address that starts the export.

        Raises:
            RecordError: the group is no id, or a type no type.
        """
        if self.group is not None and not _ID.match(self.group):
            raise RecordError(f"expected a group's id (A-Z, 0-9, '-', '.'), found '{self.group}'")
        check_types(self.types)
        level = f"Group/{self.group}/" if self.group else "Patient/" if self.patients else ""
        named = [("_outputFormat", "application/fhir+ndjson")]
        if self.types:
            named.append(("_type", ",".join(self.types)))
        if self.since:
            named.append(("_since", self.since))
        named += [("_typeFilter", one) for one in self.filters]
        return f"{base}/{level}$export?{urlencode(named)}"


def check_types(types: Iterable[str]) -> None:
    """Refuse names that are no FHIR resource types.

    Raises:
        RecordError: one is none.
    """
    for name in types:
        if not _TYPE.match(name):
            raise RecordError(f"expected a FHIR resource type such as Observation, found '{name}'")


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore")

    url: str
    type: str = Field(default="", pattern=r"^[A-Za-z]{0,60}$")
    count: int | None = Field(default=None, ge=0)


class _Link(BaseModel):
    model_config = ConfigDict(extra="ignore")

    relation: str = ""
    url: str


_T = TypeVar("_T")
# Some servers write null where they have nothing to list.
_Listed = Annotated[list[_T], BeforeValidator(lambda value: [] if value is None else value)]


class Manifest(BaseModel):
    """What a finished export lists; only what is used here."""

    model_config = ConfigDict(extra="ignore")

    transactionTime: str  # noqa: N815 - FHIR's name
    requiresAccessToken: bool = True  # noqa: N815
    output: _Listed[_File]
    deleted: _Listed[_File] = []
    error: _Listed[_File] = []
    link: _Listed[_Link] = []


class _State(BaseModel):
    model_config = ConfigDict(extra="forbid")

    request: str
    status_url: str
    manifest: Manifest | None = None


class Export:
    """One export of a server.

    Args:
        web: to the server.
        folder: for its files and its state.
        asked: what it is to hold.
        told: is told how far it is.
    """

    def __init__(self, web: Web, folder: Folder, asked: Asked, told: Callable[[str], None]) -> None:
        self._web = web
        self._folder = folder
        self._request = asked.url(web.base)
        self._told = told
        self._status_url: str | None = None

    def fetch(self) -> Manifest:
        """Bring everything into the folder, going on with what an earlier try left.

        Returns:
            The manifest; its files are `output-*`, `deleted-*` and `error-*` in the folder.

        Raises:
            RecordError: the server refuses, the export failed, or files are not whole.
        """
        state = self._resumed() or self._kicked_off()
        self._status_url = state.status_url
        if state.manifest is None:
            state.manifest = self._awaited(state)
            self._keep(state)
        self._check_addresses(state.manifest)
        for kind in ("output", "deleted", "error"):
            files: list[_File] = getattr(state.manifest, kind)
            for number, file in enumerate(files, start=1):
                name = f"{kind}-{number:05d}-{file.type or 'resources'}.ndjson"
                self._bring(file, name, f"{kind} {number} of {len(files)}", state.manifest)
        return state.manifest

    def finish(self) -> str | None:
        """Tell the server that its files can go, and remove ours.

        Returns:
            What a person should know, if something went wrong.
        """
        trouble = None
        if self._status_url is not None:
            try:
                answer = self._web.delete(self._status_url)
                if answer.status >= 400 and answer.status != 404:
                    trouble = f"the server did not remove its export: status {answer.status}"
            except RecordError as error:
                trouble = f"the server did not remove its export: {error}"
        self._folder.empty()
        return trouble

    def _resumed(self) -> _State | None:
        data = self._folder.read(_STATE)
        if data is None:
            return None
        try:
            state = _State.model_validate_json(data)
        except ValidationError:
            self._folder.empty()
            return None
        if state.request != self._request:
            self._told("an unfinished export that asked for something else is dropped")
            self._status_url = state.status_url
            self.finish()
            return None
        if state.manifest is None and self._web.get(state.status_url).status in {404, 410}:
            self._told("the server has forgotten the export of before; a new one is started")
            self._folder.empty()
            return None
        self._told("going on with the export of before")
        return state

    def _kicked_off(self) -> _State:
        self._folder.empty()
        answer = self._web.get(self._request, headers={"Accept": JSON, "Prefer": "respond-async"})
        if answer.status != 202:
            raise refusal(answer)
        where = answer.headers.get("content-location")
        if not where:
            raise RecordError(
                f"{shown(answer.url)} starts an export and does not say where (Content-Location)"
            )
        status_url = resolved(where, answer.url)
        if not self._web.gets_token(status_url):
            raise RecordError(
                f"{shown(self._web.base)} sends on to {origin_of(status_url)} to ask how far the "
                "export is; the token is for the server itself alone, so it is not asked there"
            )
        state = _State(request=self._request, status_url=status_url)
        self._keep(state)
        return state

    def _keep(self, state: _State) -> None:
        self._folder.write(_STATE, state.model_dump_json().encode())

    def _awaited(self, state: _State) -> Manifest:
        """Ask until the manifest is there."""
        began = self._web.clock.now()
        pause = _FIRST_LOOK_S
        while True:
            answer = self._web.get(state.status_url)
            if answer.status == 200:
                return self._all_pages(answer)
            if answer.status in {404, 410}:
                self._folder.empty()
                raise RecordError(
                    f"{shown(state.status_url)} knows nothing of the export any more: run the "
                    "command again, which starts a new one"
                )
            if answer.status not in {202, 429}:
                self._folder.empty()
                raise RecordError(
                    f"the export failed at the server: status {answer.status}"
                    f"{outcome_of(answer.body)}; run the command again, or ask its operator"
                )
            if self._web.clock.now() - began > _LONGEST:
                raise RecordError(
                    "the export is not ready after 48 hours: run the command again, which goes on "
                    "asking, or ask the server's operator"
                )
            said = " ".join(answer.headers.get("x-progress", "").split())[:60]
            self._told(f"the server prepares the export{f': {said}' if said else ''}")
            asked = retry_after(answer.headers, self._web.clock.now())
            self._web.clock.wait(pause if asked is None else max(asked, 0.5))
            pause = min(pause * 1.5, _RAREST_LOOK_S)

    def _all_pages(self, answer: Answer) -> Manifest:
        """The manifest, with those that it links to as its next pages."""
        answer = self._web.whole(answer)
        whole = _manifest(answer)
        page, seen = whole, {answer.url}
        while following := [link.url for link in page.link if link.relation == "next"]:
            url = resolved(following[0], answer.url)
            if url in seen or len(seen) > _MOST_PAGES or not self._web.gets_token(url):
                raise RecordError(f"the manifest's next page {shown(url)} runs in a circle or away")
            seen.add(url)
            answer = self._web.get(url)
            if answer.status != 200:
                raise refusal(answer)
            answer = self._web.whole(answer)
            page = _manifest(answer)
            whole.output += page.output
            whole.deleted += page.deleted
            whole.error += page.error
        return whole

    def _check_addresses(self, manifest: Manifest) -> None:
        """Refuse files that only somebody else gives out, and only against our token."""
        for file in [*manifest.output, *manifest.deleted, *manifest.error]:
            refuse_inward(file.url, self._web.base)
            if manifest.requiresAccessToken and not self._web.gets_token(file.url):
                raise RecordError(
                    f"the server wants its token shown to {origin_of(file.url)}; it is for "
                    f"{origin_of(self._web.base)} alone, so nothing is fetched there. Ask its "
                    "operator for files at its own address, or for links that need no token"
                )

    def _bring(self, file: _File, name: str, which: str, manifest: Manifest) -> None:
        path = self._folder.path / name
        for last in (False, True):
            if not path.exists():
                self._fetch(file, name, which, manifest)
            # An account of errors is read whatever it holds; what is missing is known without it.
            wrong = None if name.startswith("error-") else self._wrong(file, path, which)
            if wrong is None:
                return
            if last:
                self.finish()  # else the next try would go on with the same manifest
                raise RecordError(
                    f"{wrong}, twice; nothing was imported. Run the command again, which starts a "
                    "new export, or tell the server's operator"
                )
            path.unlink()

    def _wrong(self, file: _File, path: Path, which: str) -> str | None:
        """Why a file is not what it should be, as the beginning of a sentence."""
        found = self._folder.contents(path)
        if file.count is not None and found.lines != file.count:
            return (
                f"the manifest promises {file.count} resources in file {which} ({file.type}), "
                f"which has {found.lines}"
            )
        return None if found.whole else f"file {which} ({file.type}) breaks off within a resource"

    def _fetch(self, file: _File, name: str, which: str, manifest: Manifest) -> None:
        token = manifest.requiresAccessToken
        came = 0
        download = Download(self._web, self._folder, file.url, name, authorised=token)
        try:
            for size in download.fetch():
                came += size
                self._told(f"fetching {which}: {file.type}, {came / 1e6:,.1f} MB")
        except GoneError as error:
            self.finish()  # else the next try would ask for the same addresses
            raise RecordError(
                f"{shown(file.url)} (file {which}, {file.type}) is no longer there: {error}. "
                "Servers keep an export for a limited time; nothing was imported: "
                "run the command again, which starts a new export"
            ) from error


def _manifest(answer: Answer) -> Manifest:
    value: Any = answer.json()
    try:
        manifest = Manifest.model_validate(value)
        for file in [*manifest.output, *manifest.deleted, *manifest.error]:
            file.url = resolved(file.url, answer.url)
        return manifest
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise RecordError(
            f"the manifest of the export is not one: {where}: {error.errors()[0]['msg']}"
        ) from error


def output_files(folder: Folder) -> list[Path]:
    """The files of resources in a folder."""
    return folder.files("output-*.ndjson")
