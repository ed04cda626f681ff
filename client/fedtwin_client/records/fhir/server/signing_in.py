"""Access tokens by SMART Backend Services (SMART App Launch 2.2, "Backend Services").

The server says where tokens are given, in `.well-known/smart-configuration` or, if it is older, in
its CapabilityStatement. A token is kept until shortly before its end, or until it is refused. Life
is counted on this machine's clock from the answer on; the assertion is dated by the server's clock
where the two differ.
"""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from fedtwin_client.records.fhir.server.addresses import refuse_inward, resolved, shown
from fedtwin_client.records.fhir.server.keys import ASSERTION, FhirKey
from fedtwin_client.records.fhir.server.web import (
    JSON,
    Answer,
    Web,
    http_date,
    outcome_of,
    refusal,
)
from fedtwin_protocol.errors import RecordError

_DEFAULT_LIFE_S: Final = 300
_MARGIN: Final = 0.1
_TOLERATED: Final = timedelta(seconds=30)
_OAUTH: Final = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """What a server says of itself.

    Attributes:
        token_url: where tokens are given; none where it names no such place.
        methods: how clients may sign in there; empty if it does not say.
        algorithms: that assertions may be signed with; empty if it does not say.
        skew: how far its clock is ahead of this machine's.
    """

    token_url: str | None
    methods: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ()
    skew: timedelta = timedelta()


def discover(web: Web) -> Server:
    """Ask a server how to sign in.

    Raises:
        RecordError: it cannot be reached, or is no FHIR server.
    """
    answer = web.get(f"{web.base}/.well-known/smart-configuration", headers={"Accept": "*/*"})
    skew = _skew(answer, web.clock.now())
    if answer.status == 200:
        try:
            found = answer.json()
        except RecordError:
            found = {}
        if isinstance(found.get("token_endpoint"), str):
            return Server(
                token_url=resolved(found["token_endpoint"], answer.url),
                methods=_words(found, "token_endpoint_auth_methods_supported"),
                algorithms=_words(found, "token_endpoint_auth_signing_alg_values_supported"),
                skew=skew,
            )
    answer = web.get(f"{web.base}/metadata", headers={"Accept": JSON})
    if answer.status != 200:
        raise refusal(answer)
    return Server(token_url=_declared(answer.json()), skew=_skew(answer, web.clock.now()))


class SignedIn:
    """Gives out access tokens, and gets new ones when needed.

    Args:
        web: to the server; it is told to use these tokens.
        server: what it says of itself.
        key: the node's.
        client_id: that the server gave this node.
        scopes: asked for, such as `system/*.rs`.
        told: is told what a person should know.

    Raises:
        RecordError: the server names no place for tokens, or does not take such a key.
    """

    def __init__(
        self,
        web: Web,
        server: Server,
        *,
        key: FhirKey,
        client_id: str,
        scopes: str,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        if server.token_url is None:
            raise RecordError(
                f"{shown(web.base)} names no place that gives tokens, in smart-configuration or in "
                "its CapabilityStatement: if it needs none, leave --client-id out"
            )
        refuse_inward(server.token_url, web.base)
        if server.methods and "private_key_jwt" not in server.methods:
            raise RecordError(
                f"{shown(web.base)} does not take private_key_jwt (it takes "
                f"{', '.join(server.methods)[:200]}): ask for SMART Backend Services there"
            )
        if server.algorithms and key.algorithm not in server.algorithms:
            raise RecordError(
                f"{shown(web.base)} does not take {key.algorithm} (it takes "
                f"{', '.join(server.algorithms)[:200]}): make such a key with "
                "'fedtwin client records fhir-key --algorithm'"
            )
        self._web = web
        self._url = server.token_url
        self._key = key
        self._client_id = client_id
        self._scopes = scopes
        self._told = told
        self._skew = server.skew if abs(server.skew) > _TOLERATED else timedelta()
        if self._skew:
            told(
                f"the server's clock differs from this machine's by "
                f"{self._skew.total_seconds():+.0f} s; it is allowed for"
            )
        self._token = ""
        self._until: datetime | None = None
        web.tokens = self

    def token(self) -> str:
        """A token that is good for now.

        Raises:
            RecordError: the server gives none.
        """
        if self._until is None or self._web.clock.now() >= self._until:
            self._fetch()
        return self._token

    def renew(self) -> None:
        """Forget the token at hand."""
        self._until = None

    def _fetch(self) -> None:
        answer = self._ask()
        if answer.status != 200:
            # A clock that was set since the discovery is the usual cause that can be mended here.
            skew = _skew(answer, self._web.clock.now())
            if abs(skew - self._skew) > _TOLERATED:
                self._skew = skew
                answer = self._ask()
        if answer.status != 200:
            raise RecordError(
                f"{shown(self._url)} gives no token (status {answer.status}"
                f"{outcome_of(answer.body)}): is the client id right, is this key's JWKS "
                f"registered (kid {self._key.kid}), and are the scopes '{self._scopes}' granted?"
            )
        found = answer.json()
        token, kind = found.get("access_token"), found.get("token_type")
        if (
            not isinstance(token, str)
            or not token
            or not token.isascii()
            or not token.isprintable()
        ):
            raise RecordError(f"{shown(self._url)} answers without an access token")
        if not isinstance(kind, str) or kind.lower() != "bearer":
            raise RecordError(f"{shown(self._url)} gives a token that is no bearer token")
        life = found.get("expires_in")
        seconds = float(life) if isinstance(life, int | float) and life > 0 else _DEFAULT_LIFE_S
        seconds = min(seconds, 86_400.0)
        self._token = token
        self._until = self._web.clock.now() + timedelta(seconds=seconds * (1 - _MARGIN))

    def _ask(self) -> Answer:
        now = self._web.clock.now() + self._skew
        unique = secrets.token_urlsafe(24)
        form = {
            "grant_type": "client_credentials",
            "scope": self._scopes,
            "client_assertion_type": ASSERTION,
            "client_assertion": self._key.assertion(self._client_id, self._url, now, unique),
        }
        return self._web.post_form(self._url, form)


def _skew(answer: Answer, now: datetime) -> timedelta:
    date = http_date(answer.headers.get("date", ""))
    return timedelta() if date is None else date - now


def _words(value: dict[str, Any], name: str) -> tuple[str, ...]:
    found = value.get(name)
    return tuple(x for x in found if isinstance(x, str)) if isinstance(found, list) else ()


def _declared(statement: dict[str, Any]) -> str | None:
    """The token endpoint that a CapabilityStatement declares."""
    for extension in _security_extensions(statement):
        parts = extension.get("extension")
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict) and part.get("url") == "token":
                address = part.get("valueUri")
                return address if isinstance(address, str) else None
    return None


def _security_extensions(statement: dict[str, Any]) -> Iterator[dict[str, Any]]:
    rests = statement.get("rest")
    for rest in rests if isinstance(rests, list) else ():
        security = rest.get("security") if isinstance(rest, dict) else None
        found = security.get("extension") if isinstance(security, dict) else None
        for extension in found if isinstance(found, list) else ():
            if isinstance(extension, dict) and extension.get("url") == _OAUTH:
                yield extension
