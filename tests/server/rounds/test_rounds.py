"""The rules of an exchange, for every course that one can take."""

from dataclasses import replace
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from fedtwin_server import rounds

SITES = ("aal", "bergen", "cork", "delft", "essen")
names = st.sets(st.sampled_from(SITES), min_size=1)
moments = st.floats(min_value=0, max_value=500, allow_nan=False)
outcomes = st.sampled_from(["answered", "failed", "asked"])
courses = st.lists(st.tuples(st.sampled_from(SITES), st.sampled_from(["answered", "failed"])))


def begin(sites: object, quorum: int, deadline_s: float = 100.0) -> rounds.ExchangeState:
    return rounds.begin(
        sites,  # type: ignore[arg-type]
        quorum=quorum,
        now=0.0,
        deadline_s=deadline_s,
        lease_s=30.0,
    )


def after(state: rounds.ExchangeState, course: list[tuple[str, str]]) -> rounds.ExchangeState:
    for site, outcome in course:
        change = rounds.answered if outcome == "answered" else rounds.failed
        state = change(state, site)
    return state


@given(names, st.integers(0, 6), courses, moments, st.sets(st.sampled_from(SITES)), moments)
def test_never_closes_below_the_quorum(sites, quorum, course, early, up, now) -> None:
    state = rounds.reach(after(begin(sites, quorum), course), up, early)
    if rounds.verdict(state, now) == "close":
        assert len(state.answered) >= quorum


@given(names, st.integers(0, 6), courses, moments)
def test_ends_when_everybody_answered_or_failed(sites, quorum, course, now) -> None:
    """With enough answers it closes, with too few it stops; it never waits for nobody."""
    full = course + [(site, "failed") for site in sites]
    state = after(begin(sites, quorum), full)
    assert state.missing == ()
    expected = "close" if len(state.answered) >= quorum else "stop"
    assert rounds.verdict(state, now) == expected


@given(names, st.integers(0, 6), courses, moments)
def test_never_stops_while_somebody_may_answer(sites, quorum, course, now) -> None:
    state = after(begin(sites, quorum), course)
    if state.missing:
        assert rounds.verdict(state, now) != "stop"


@given(st.lists(st.tuples(st.sampled_from(SITES), outcomes), min_size=1, max_size=4), moments)
def test_the_order_of_the_sites_outcomes_does_not_matter(course, now) -> None:
    once = [(site, kind) for site, kind in dict(course).items() if kind != "asked"]
    states = {
        (state.answered, state.failed, rounds.verdict(state, now))
        for order in permutations(once)
        for state in [after(begin(SITES, 2), list(order))]
    }
    assert len(states) == 1


@given(courses)
def test_the_first_outcome_of_a_site_counts(course) -> None:
    """Neither a second answer nor a later failure changes it; strangers change nothing."""
    state = after(begin(("aal", "bergen"), 1), course)
    for site in ("aal", "bergen"):
        first = next((kind for name, kind in course if name == site), "asked")
        assert state.sites[site].status == first
    assert set(state.sites) == {"aal", "bergen"}


@given(names, st.integers(1, 5), courses, st.floats(1, 400), moments)
def test_the_deadline(sites, quorum, course, deadline_s, now) -> None:
    """Before it, the missing who are here are waited for; after it, a quorum is enough."""
    state = rounds.reach(after(begin(sites, quorum, deadline_s), course), SITES, 0.0)
    if not state.missing:
        return
    late = now >= deadline_s
    enough = len(state.answered) >= quorum
    assert rounds.verdict(state, now) == ("close" if late and enough else "wait")
    assert rounds.overdue(state, now) == (late and not enough)


@given(st.floats(0, 60), st.floats(0, 60), st.booleans())
def test_the_lease(lost, waited, comes_back) -> None:
    """A site out of reach is waited for as long as its lease; coming back renews it."""
    state = after(begin(("aal", "bergen"), 1, 1e6), [("aal", "answered")])
    state = rounds.reach(state, ("aal",), lost)
    if comes_back:
        state = rounds.reach(state, ("aal", "bergen"), lost + waited / 2)
        state = rounds.reach(state, ("aal",), lost + waited)
    now = lost + waited
    closes = not comes_back and waited > 30.0
    if abs(waited - 30.0) > 1e-6:
        assert rounds.verdict(state, now) == ("close" if closes else "wait")
    assert rounds.verdict(rounds.reach(state, ("aal",), now), now + 31) == "close"


@given(st.lists(st.tuples(moments, st.booleans()), max_size=8))
def test_being_out_of_reach_is_counted_from_its_beginning(looks) -> None:
    state = begin(("aal",), 1)
    since = None
    for moment, here in sorted(looks):
        state = rounds.reach(state, ("aal",) if here else (), moment)
        since = None if here else (moment if since is None else since)
    assert state.sites["aal"].out_of_reach_since == since


def test_one_lost_and_one_silent() -> None:
    """Somebody missing whose link is up is waited for until the deadline."""
    state = after(begin(SITES[:3], 1), [("aal", "answered")])
    state = rounds.reach(state, ("aal", "bergen"), 0.0)
    assert rounds.verdict(state, 99.0) == "wait"
    assert rounds.verdict(state, 100.0) == "close"
    gone = replace(state, sites={**state.sites})
    gone = rounds.reach(gone, ("aal",), 10.0)
    assert rounds.verdict(gone, 40.0) == "wait"
    assert rounds.verdict(gone, 40.1) == "close"
