"""Paged search (FHIR R4, http://hl7.org/fhir/R4/search.html, "Paging") and history.

The next page is followed on the server's own address only, and never twice. A page that comes half
is asked for again. What comes twice is harmless: the newest version of a record counts.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from fedtwin_client.records.fhir.server.addresses import origin_of, resolved, shown
from fedtwin_client.records.fhir.server.web import Web, outcome_text, refusal
from fedtwin_protocol.errors import RecordError

_MOST_PAGES: Final = 1_000_000
_NO_HISTORY: Final = frozenset({400, 404, 405, 501})


def search_url(base: str, kind: str, named: Sequence[tuple[str, str]], count: int) -> str:
    """The address of a search's first page.

    Args:
        base: the server's.
        kind: resource type.
        named: search parameters.
        count: resources a page.
    """
    return f"{base}/{kind}?{urlencode([*named, ('_count', str(count))])}"


def pages(
    web: Web, url: str, first: dict[str, Any] | None = None
) -> Iterator[tuple[dict[str, Any], str | None]]:
    """The pages of a search or a history, each with the next one's address.

    Args:
        web: to the server.
        url: of the first page.
        first: the first page, if it is at hand.

    Raises:
        RecordError: the server refuses; a page is no Bundle; the next one lies elsewhere, was there
            before, or is missing.
    """
    seen = {url}
    following: str | None = url
    while following is not None:
        bundle = first or web.get_json(following)
        first = None
        if bundle.get("resourceType") != "Bundle":
            raise RecordError(
                f"expected a Bundle from {shown(following)}, found "
                f"{str(bundle.get('resourceType'))[:40]}{outcome_text(bundle)}"
            )
        ahead = _next(bundle, following)
        if ahead is not None:
            if not web.gets_token(ahead):
                raise RecordError(
                    f"the next page after {shown(following)} lies at {origin_of(ahead)}: pages are "
                    f"followed at {origin_of(web.base)} alone. Ask the server's operator to set "
                    "its own base address right"
                )
            if ahead in seen or len(seen) > _MOST_PAGES:
                raise RecordError(
                    f"the pages of {shown(following)} run in a circle, so nothing more of them is "
                    "read; tell the server's operator, or ask for fewer a page (--page)"
                )
            seen.add(ahead)
        elif len(seen) == 1:
            _refuse_part(bundle, following)
        yield bundle, ahead
        following = ahead


def history(web: Web, kind: str, since: str, count: int) -> Iterator[dict[str, Any]] | None:
    """What became of a type's resources since an instant; none where the server has no history.

    Raises:
        RecordError: the server refuses for another reason.
    """
    named = urlencode([("_since", since), ("_count", str(count))])
    url = f"{web.base}/{kind}/_history?{named}"
    answer = web.get(url)
    if answer.status in _NO_HISTORY:
        return None
    if answer.status != 200:
        raise refusal(answer)
    try:
        first = answer.json()
    except RecordError:  # it came half
        first = None
    return (bundle for bundle, _ in pages(web, url, first))


def _refuse_part(bundle: dict[str, Any], url: str) -> None:
    """Refuse a first page that is not all, and says nothing of a next one."""
    entries, total = bundle.get("entry"), bundle.get("total")
    found = 0
    for entry in entries if isinstance(entries, list) else ():
        search = entry.get("search") if isinstance(entry, dict) else None
        mode = search.get("mode") if isinstance(search, dict) else None
        found += mode in {None, "match"}
    if isinstance(total, int) and not isinstance(total, bool) and total > found:
        raise RecordError(
            f"{shown(url)} says that there are {total}, gives {found} and names no next page: the "
            "server does not page. Ask for more a page (--page), or export instead"
        )


def _next(bundle: dict[str, Any], url: str) -> str | None:
    links = bundle.get("link")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("relation") == "next":
            target = link.get("url")
            return resolved(target, url) if isinstance(target, str) and target else None
    return None
