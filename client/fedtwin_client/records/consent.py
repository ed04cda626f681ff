"""What a FHIR R4 Consent says of research with a patient's records; in doubt, they stay out.

A Consent becomes statements, each with a time in which it holds:

- `deny`: the patient is left out, whatever else says otherwise.
- `permit`: research with all of the record is allowed.
- `doubt`: left out unless a `permit` holds: a permission that ran out, was ended or rejected, holds
  for a part of the record or some purposes only, or is written in a way not understood here.

How it is read (FHIR R4 Consent; http://hl7.org/fhir/R4/consent.html):

1. About research is a scope or a category `research`, or a provision with a purpose of research
   (v3-ActReason HRESCH and its kind). A Consent of scope treatment or adr without one is not.
2. Without scope research, a permission counts only by its purpose; a denial counts always, except
   for purposes that are all something else.
3. The provision's type counts; without one (R4 knows it in nested provisions only) the policy rule
   OPTIN or OPTOUT; a Consent with neither is a doubt.
4. A nested denial denies; a nested permission permits within a denial, which is then a doubt. What
   stands deeper can only deny.
5. A denial that is limited to some data, actors or actions denies all: the node cannot leave out a
   part of a record. A permission that is limited so is a doubt.
6. Only an active Consent permits. A rejected one denies. An inactive permission, and a draft or
   proposed denial, is a doubt. An inactive denial and a Consent entered in error say nothing.
7. An unread modifier extension, an unreadable period and a verification that failed are doubts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

from fedtwin_client.records.moments import Moment
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.resources import Resource, text_of

Verdict = Literal["deny", "permit", "doubt"]
ReadTime = Callable[[Any], Moment]

# v3-ActReason (terminology.hl7.org): research in general; and its special kinds, which permit no
# other research, but whose denial is one.
_RESEARCH: Final = {"HRESCH", "BIORCH"}
_SPECIAL: Final = {"CLINTRCH", "CLINTRCHNPC", "CLINTRCHPC", "DSRCH", "POARCH", "PRECLINTRCH"}
_SPECIAL_TOO: Final = _SPECIAL | {"TRANSRCH"}
_CATEGORIES: Final = {"research", "rsdid", "rsreid"}
_OTHER_SCOPES: Final = {"treatment", "adr"}
_LIMITS: Final = ("actor", "action", "securityLabel", "class", "code", "dataPeriod", "data")
_DEEPEST: Final = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """One thing that a Consent says.

    Attributes:
        verdict: what it says.
        starts: from when it holds; none: since ever.
        ends: until when; none: for good.
    """

    verdict: Verdict
    starts: datetime | None = None
    ends: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Consent:
    """The newest version of a Consent.

    Attributes:
        updated: when the source says it was last changed; none if it does not.
        subject_id: whose it is; none if that cannot be told.
        statements: what it says of research, perhaps nothing.
    """

    updated: datetime | None
    subject_id: int | None
    statements: list[Statement]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Span:
    """A time between two moments."""

    starts: datetime | None = None
    ends: datetime | None = None

    def within(self, other: "_Span") -> "_Span":
        starts = [time for time in (self.starts, other.starts) if time]
        ends = [time for time in (self.ends, other.ends) if time]
        return _Span(starts=max(starts, default=None), ends=min(ends, default=None))


def statements_of(consent: Resource, read_time: ReadTime) -> list[Statement]:
    """What a Consent says of research; nothing if it is about something else.

    Args:
        consent: the resource.
        read_time: reads a FHIR date or time, and raises `UnusableError` where it is none. Unlike
            other times, those of a consent may lie in the future.

    Raises:
        UnusableError: it has no status, or one that FHIR does not know.
    """
    status = text_of(consent, "status")
    if status == "entered-in-error":
        return []
    if status not in {"active", "inactive", "rejected", "draft", "proposed"}:
        raise UnusableError("a Consent without a status that FHIR knows")
    found = list(_said(consent, read_time))
    if status == "rejected":
        return [Statement(verdict="deny")] if found else []
    if status == "active":
        return found
    in_doubt = "permit" if status == "inactive" else "deny"
    return [
        replace(item, verdict="doubt", ends=None)
        for item in found
        if item.verdict in {in_doubt, "doubt"}
    ]


def _said(consent: Resource, read_time: ReadTime) -> Iterator[Statement]:
    """What it says if it is active."""
    scopes, categories = _codes(consent.get("scope")), _codes(consent.get("category"))
    root = consent.get("provision")
    rule = root if isinstance(root, dict) else {}
    about = "research" in scopes or bool({code.lower() for code in categories} & _CATEGORIES)
    if not about and not _mentions_research(rule, _DEEPEST):
        if scopes & _OTHER_SCOPES:
            return
        if _kind(rule, consent) != "deny" or _codes(rule.get("purpose")):
            return  # a permission of something else, or a denial of it
    if _unread(consent) or _unverified(consent):
        yield Statement(verdict="doubt")
        return
    try:
        yield from _rule(rule, consent, about, read_time)
    except UnusableError:
        yield Statement(verdict="doubt")


def _rule(
    rule: dict[str, Any], consent: Resource, about: bool, read_time: ReadTime
) -> Iterator[Statement]:
    span = _span(rule, read_time)
    kind = _kind(rule, consent)
    exceptions = [
        statement
        for item in _nested(rule)
        for statement in _exception(item, span, about, kind, read_time)
    ]
    if kind == "deny" and _denies(rule):
        excepted = any(statement.verdict == "permit" for statement in exceptions)
        yield Statement(verdict="doubt" if excepted else "deny", starts=span.starts, ends=span.ends)
    elif kind == "permit":
        yield from _permission(rule, span, about)
    elif kind is None:
        yield Statement(verdict="doubt")
    yield from exceptions


def _exception(
    rule: dict[str, Any], outer: _Span, about: bool, base: str | None, read_time: ReadTime
) -> Iterator[Statement]:
    """A nested provision, and whatever denials are in it."""
    span = _span(rule, read_time).within(outer)
    kind = _type(rule)
    if kind == "deny" and _denies(rule):
        yield Statement(verdict="deny", starts=span.starts, ends=span.ends)
    elif kind == "permit" and base != "permit":
        yield from _permission(rule, span, about)
    elif kind is None:
        yield Statement(verdict="doubt")
    if _denied_deeper(rule, _DEEPEST):
        yield Statement(verdict="deny")


def _permission(rule: dict[str, Any], span: _Span, about: bool) -> Iterator[Statement]:
    purposes = _codes(rule.get("purpose"))
    whole = bool(purposes & _RESEARCH) if purposes else about
    limited = any(rule.get(name) for name in _LIMITS) or bool(rule.get("modifierExtension"))
    if limited or not whole:
        if about or purposes & (_RESEARCH | _SPECIAL_TOO):
            yield Statement(verdict="doubt")
        return
    yield Statement(verdict="permit", starts=span.starts, ends=span.ends)
    if span.ends is not None:
        yield Statement(verdict="doubt", starts=span.ends)


def _denies(rule: dict[str, Any]) -> bool:
    """Whether a denial is one of research: by its purpose, or because it names none."""
    purposes = _codes(rule.get("purpose"))
    return not purposes or bool(purposes & (_RESEARCH | _SPECIAL_TOO))


def _denied_deeper(rule: dict[str, Any], depth: int) -> bool:
    if not depth:
        return True
    return any(
        (_type(item) == "deny" and _denies(item)) or _denied_deeper(item, depth - 1)
        for item in _nested(rule)
    )


def _mentions_research(rule: dict[str, Any], depth: int) -> bool:
    if _codes(rule.get("purpose")) & (_RESEARCH | _SPECIAL_TOO):
        return True
    return depth > 0 and any(_mentions_research(item, depth - 1) for item in _nested(rule))


def _kind(rule: dict[str, Any], consent: Resource) -> str | None:
    """Permit or deny: by the provision's type, else by the policy rule."""
    kind = _type(rule)
    if kind is not None:
        return kind
    policy = {code.upper() for code in _codes(consent.get("policyRule"))}
    if policy & {"OPTOUT", "OPTOUTE"}:
        return "deny"
    return "permit" if policy & {"OPTIN"} else None


def _type(rule: dict[str, Any]) -> str | None:
    kind = rule.get("type")
    return kind if kind in {"permit", "deny"} else None


def _nested(rule: dict[str, Any]) -> list[dict[str, Any]]:
    items = rule.get("provision")
    if isinstance(items, dict):
        items = [items]
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _span(rule: dict[str, Any], read_time: ReadTime) -> _Span:
    period = rule.get("period")
    if period is None:
        return _Span()
    if not isinstance(period, dict):
        raise UnusableError("a period that cannot be read")
    starts, ends = period.get("start"), period.get("end")
    return _Span(
        starts=read_time(starts).start if starts is not None else None,
        ends=read_time(ends).end if ends is not None else None,
    )


def _unread(consent: Resource) -> bool:
    """Whether something may turn its meaning round that is not read here."""
    root = consent.get("provision")
    odd = root is not None and not isinstance(root, dict)
    return odd or bool(consent.get("modifierExtension") or consent.get("implicitRules"))


def _unverified(consent: Resource) -> bool:
    checks = consent.get("verification")
    if not isinstance(checks, list) or not checks:
        return bool(checks)
    said = [item.get("verified") for item in checks if isinstance(item, dict)]
    return False in said and True not in said


def _codes(concepts: Any) -> set[str]:
    """The codes of a Coding or CodeableConcept, or of a list of them; systems are not compared.

    A code of one of these meanings in another system is rare, and taken for what it says.
    """
    found: set[str] = set()
    for concept in concepts if isinstance(concepts, list) else [concepts]:
        if not isinstance(concept, dict):
            continue
        inner = concept.get("coding")
        codings = inner if isinstance(inner, list) else [concept]
        found |= {
            str(item["code"]) for item in codings if isinstance(item, dict) and "code" in item
        }
    return found
