"""HTTP to one FHIR server: tries again where that helps, and gives the token to nobody else.

- TLS is checked, with the hospital's own CA if one is named; proxies are those that are named, not
  those of the environment.
- 408, 429, 5xx and broken connections are tried again, after `Retry-After` or longer every time.
- 401 asks for a new token once.
- Redirects are followed by hand, so that each hop's origin decides on its own whether it gets the
  token; what is posted is never sent on.
"""

import email.utils
import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import httpx

from fedtwin_client.records.fhir.server.addresses import (
    check_server_url,
    origin_of,
    refuse_inward,
    resolved,
    shown,
)
from fedtwin_protocol.errors import ConfigurationError, RecordError
from fedtwin_protocol.proxies import check_proxy

_TRIES: Final = 6
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 600.0
_REDIRECTS: Final = 5
_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_LARGEST_ANSWER: Final = 256 * 1024 * 1024
JSON: Final = "application/fhir+json"


class Tokens(Protocol):
    """Where access tokens come from."""

    def token(self) -> str:
        """One that is good for now."""

    def renew(self) -> None:
        """Forget the one at hand: it was refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """Time and waiting, handed in.

    Attributes:
        now: the time, aware.
        wait: sleeps for some seconds.
    """

    now: Callable[[], datetime]
    wait: Callable[[float], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A server's answer.

    Attributes:
        url: that gave it, after redirects.
        status: of HTTP.
        headers: their names in lower case.
        body: as it came.
    """

    url: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            RecordError: it is none: it was cut off, or something else answered.
        """
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise RecordError(
                f"expected JSON from {shown(self.url)}, found {len(self.body)} bytes of something "
                "else: is this the address of a FHIR server?"
            ) from error
        if not isinstance(value, dict):
            raise RecordError(f"expected a JSON object from {shown(self.url)}, found another value")
        return value


class Web:
    """HTTP to one server.

    Args:
        base: the server's address; its origin alone gets the token.
        clock: time and waiting.
        ca: certificates of the CA that vouches for the server, PEM; none: the machine's.
        proxy: `http://host:port`; none: no proxy.
        timeout_s: of connecting, and of each silence.

    Raises:
        RecordError: the address is none, or not encrypted.
        ConfigurationError: the CA's file or the proxy's address cannot be used.
    """

    def __init__(
        self,
        base: str,
        clock: Clock,
        *,
        ca: Path | None = None,
        proxy: str | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        self.base = check_server_url(base)
        self.clock = clock
        self.tokens: Tokens | None = None
        self._own = origin_of(self.base)
        if proxy is not None:
            check_proxy(proxy)
        self._client = httpx.Client(
            verify=_trust(ca), proxy=proxy, trust_env=False, timeout=timeout_s
        )

    def __enter__(self) -> "Web":
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()

    def shut(self) -> None:
        """Close the connections."""
        self._client.close()

    def gets_token(self, url: str) -> bool:
        """Whether an address is the server's own."""
        return origin_of(url) == self._own

    def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        """Ask for a whole answer, whatever its status; transient ones are tried again."""
        return self._again("GET", url, {"Accept": JSON, **(headers or {})})

    def get_json(self, url: str) -> dict[str, Any]:
        """Ask for a JSON object; one that was cut off is asked for again.

        Raises:
            RecordError: the server refuses, or never gives a whole one.
        """
        answer = self.get(url)
        if answer.status != httpx.codes.OK:
            raise refusal(answer)
        return self.whole(answer).json()

    def whole(self, answer: Answer) -> Answer:
        """An answer, or if its JSON was cut off another one to the same question.

        Raises:
            RecordError: the server refuses, or never gives a whole one.
        """
        for tries in range(1, _TRIES):
            try:
                answer.json()
                break
            except RecordError:
                self.clock.wait(_pause(tries))
            answer = self.get(answer.url)
            if answer.status != httpx.codes.OK:
                raise refusal(answer)
        answer.json()
        return answer

    def delete(self, url: str) -> Answer:
        """Ask for something to be deleted."""
        return self._again("DELETE", url, {"Accept": JSON})

    def post_form(self, url: str, form: Mapping[str, str]) -> Answer:
        """Send a form, without a token and without following a redirect."""
        refuse_inward(url, self.base)
        return self._trying(lambda: self._send("POST", url, {}, dict(form)))

    @contextmanager
    def stream(
        self, url: str, *, headers: Mapping[str, str], authorised: bool
    ) -> Iterator[httpx.Response]:
        """Open an answer whose body is read piece by piece; one try, redirects followed.

        Raises:
            httpx.RequestError: it broke; the caller tries again.
            RecordError: the address is not allowed.
        """
        response = self._hops("GET", url, dict(headers), authorised=authorised)
        try:
            yield response
        finally:
            response.close()

    def _again(self, method: str, url: str, headers: dict[str, str]) -> Answer:
        answer = self._trying(lambda: self._whole(method, url, headers))
        if answer.status == httpx.codes.UNAUTHORIZED and self._renewed(url):
            answer = self._trying(lambda: self._whole(method, url, headers))
        return answer

    def _renewed(self, url: str) -> bool:
        if self.tokens is None or not self.gets_token(url):
            return False
        self.tokens.renew()
        return True

    def _trying(self, ask: Callable[[], Answer]) -> Answer:
        """Ask until there is an answer that more asking would not change."""
        tries = 0
        while True:
            tries += 1
            try:
                answer = ask()
            except httpx.RequestError as error:
                if tries >= _TRIES or is_distrust(error):
                    raise unreachable(self.base, error) from error
                self.clock.wait(_pause(tries))
                continue
            if answer.status not in _TRANSIENT or tries >= _TRIES:
                return answer
            waiting = retry_after(answer.headers, self.clock.now())
            self.clock.wait(_pause(tries) if waiting is None else waiting)

    def _whole(self, method: str, url: str, headers: dict[str, str]) -> Answer:
        response = self._hops(method, url, headers, authorised=True)
        try:
            return _read(response)
        finally:
            response.close()

    def _send(self, method: str, url: str, headers: dict[str, str], form: dict[str, str]) -> Answer:
        request = self._request(method, url, headers, form)
        response = self._client.send(request, stream=True, follow_redirects=False)
        try:
            return _read(response)
        finally:
            response.close()

    def _request(
        self, method: str, url: str, headers: dict[str, str], form: dict[str, str] | None = None
    ) -> httpx.Request:
        try:
            return self._client.build_request(method, url, headers=headers, data=form)
        except (httpx.InvalidURL, ValueError) as error:
            raise RecordError(f"{shown(url)} is no address that can be asked: {error}") from error

    def _hops(
        self, method: str, url: str, headers: dict[str, str], *, authorised: bool
    ) -> httpx.Response:
        for _ in range(_REDIRECTS + 1):
            refuse_inward(url, self.base)
            sent = dict(headers)
            if authorised and self.tokens is not None and self.gets_token(url):
                sent["Authorization"] = f"Bearer {self.tokens.token()}"
            request = self._request(method, url, sent)
            response = self._client.send(request, stream=True, follow_redirects=False)
            target = response.headers.get("location")
            if response.status_code not in {301, 302, 303, 307, 308} or not target:
                return response
            response.close()
            if method != "GET":
                raise RecordError(f"{shown(url)} sends {method} elsewhere, which is not followed")
            url = resolved(target, url)
        raise RecordError(f"{shown(url)} redirects more than {_REDIRECTS} times; check the address")


def refusal(answer: Answer) -> RecordError:
    """An answer that is no success, in a sentence."""
    hint = {
        401: ": the server does not take the token; check --client-id, the key's registration and "
        "the scopes",
        403: ": the server does not allow it; ask its operator for the scopes",
        404: ": nothing is there; check the server's base address and the group",
    }.get(answer.status, "")
    return RecordError(
        f"{shown(answer.url)} answers {answer.status}{hint}{outcome_of(answer.body)}"
    )


def outcome_of(body: bytes) -> str:
    """What an OperationOutcome or an OAuth error says, as the end of a sentence."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    return outcome_text(value)


def outcome_text(value: Any) -> str:
    """The same, of parsed JSON."""
    if not isinstance(value, dict):
        return ""
    said = [value.get("error"), value.get("error_description")]
    issues = value.get("issue")
    for issue in issues if isinstance(issues, list) else ():
        if isinstance(issue, dict):
            details = issue.get("details")
            text = details.get("text") if isinstance(details, dict) else None
            said += [issue.get("diagnostics") or text or issue.get("code")]
    words = "; ".join(" ".join(text.split())[:200] for text in said if isinstance(text, str))
    return f" ({words[:500]})" if words else ""


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that a server asks to wait, at most ten minutes; none if it does not say."""
    written = headers.get("retry-after", "").strip()
    if written.isdigit():
        return min(float(written[:9]), _LONGEST_WAIT_S)
    when = http_date(written)
    return None if when is None else min(max((when - now).total_seconds(), 0.0), _LONGEST_WAIT_S)


def http_date(written: str) -> datetime | None:
    """A date as HTTP writes it; none if it is none."""
    try:
        found = email.utils.parsedate_to_datetime(written)
    except (TypeError, ValueError, IndexError):
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def is_distrust(error: BaseException) -> bool:
    """Whether the connection failed because the server's certificate is not trusted."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def unreachable(base: str, error: Exception) -> RecordError:
    """A connection that failed, in a sentence."""
    if is_distrust(error):
        return RecordError(
            f"the certificate of {shown(base)} is not trusted: name the hospital's CA with --ca, "
            "or check the address"
        )
    return RecordError(
        f"{shown(base)} cannot be reached or breaks off ({type(error).__name__}): check the "
        "address, the proxy and the network, then run the command again; it goes on where it was"
    )


def _read(response: httpx.Response) -> Answer:
    body = bytearray()
    for piece in response.iter_bytes():
        body += piece
        if len(body) > _LARGEST_ANSWER:
            raise RecordError(f"an answer of {shown(str(response.url))} is larger than 256 MiB")
    return Answer(
        url=str(response.url),
        status=response.status_code,
        headers={name.lower(): value for name, value in response.headers.items()},
        body=bytes(body),
    )


def _pause(tries: int) -> float:
    return min(_FIRST_WAIT_S * 2.0 ** (tries - 1), _LONGEST_WAIT_S)


def _trust(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"cannot use {ca} as the CA of the FHIR server ({error}): expected certificates in PEM"
        ) from error
