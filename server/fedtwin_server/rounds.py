"""One exchange with many sites as a pure state machine: no clock, no network, no store.

An exchange is a set of tasks, one a site. It closes
1. when every site has answered or failed, and enough have answered;
2. when the deadline has passed and enough have answered;
3. when everybody still missing has been out of reach for longer than the lease, and enough have
   answered.
It stops (and with it the study) when every site has answered or failed, and too few have answered:
asking again would cost every patient more privacy than the plan allows.
Otherwise it waits; a deadline without a quorum is reported once and waiting goes on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

Verdict = Literal["wait", "close", "stop"]
SiteStatus = Literal["asked", "answered", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteProgress:
    """How far one site is.

    Attributes:
        status: asked, answered, or failed.
        out_of_reach_since: seconds on the caller's clock; none while the link is up.
    """

    status: SiteStatus = "asked"
    out_of_reach_since: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ExchangeState:
    """Where an exchange stands.

    Attributes:
        sites: progress by site.
        quorum: answers needed.
        started: seconds on the caller's clock.
        deadline_s: seconds after the start.
        lease_s: a site out of reach for longer is no longer waited for.
    """

    sites: Mapping[str, SiteProgress]
    quorum: int
    started: float
    deadline_s: float
    lease_s: float

    @property
    def answered(self) -> tuple[str, ...]:
        """Sites whose answers count, by name."""
        return self._with("answered")

    @property
    def failed(self) -> tuple[str, ...]:
        """Sites whose answers were refused, or who said that they cannot."""
        return self._with("failed")

    @property
    def missing(self) -> tuple[str, ...]:
        """Sites that have not answered."""
        return self._with("asked")

    def _with(self, status: SiteStatus) -> tuple[str, ...]:
        return tuple(sorted(name for name, site in self.sites.items() if site.status == status))


def begin(
    sites: Iterable[str], *, quorum: int, now: float, deadline_s: float, lease_s: float
) -> ExchangeState:
    """A new exchange with some sites, all of them asked and in reach."""
    return ExchangeState(
        sites={name: SiteProgress() for name in sites},
        quorum=quorum,
        started=now,
        deadline_s=deadline_s,
        lease_s=lease_s,
    )


def answered(state: ExchangeState, site: str) -> ExchangeState:
    """A site's answer was admitted; only the first outcome of a site counts."""
    return _change(state, site, "answered")


def failed(state: ExchangeState, site: str) -> ExchangeState:
    """A site's answer was refused, or it said that it cannot."""
    return _change(state, site, "failed")


def reach(state: ExchangeState, in_reach: Iterable[str], now: float) -> ExchangeState:
    """Note whose links are up at this moment."""
    up = set(in_reach)
    sites = {
        name: replace(
            site,
            out_of_reach_since=None
            if name in up
            else (now if site.out_of_reach_since is None else site.out_of_reach_since),
        )
        for name, site in state.sites.items()
    }
    return replace(state, sites=sites)


def verdict(state: ExchangeState, now: float) -> Verdict:
    """What to do at this moment; the rules stand at the head of this module."""
    enough = len(state.answered) >= state.quorum
    if not state.missing:
        return "close" if enough else "stop"
    if enough and (now - state.started >= state.deadline_s or _all_lost(state, now)):
        return "close"
    return "wait"


def overdue(state: ExchangeState, now: float) -> bool:
    """The deadline has passed and too few have answered."""
    late = now - state.started >= state.deadline_s
    return late and len(state.answered) < state.quorum


def _all_lost(state: ExchangeState, now: float) -> bool:
    since = [state.sites[name].out_of_reach_since for name in state.missing]
    return all(moment is not None and now - moment > state.lease_s for moment in since)


def _change(state: ExchangeState, site: str, status: SiteStatus) -> ExchangeState:
    current = state.sites.get(site)
    if current is None or current.status != "asked":
        return state
    return replace(state, sites={**state.sites, site: replace(current, status=status)})
