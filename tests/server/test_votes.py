"""The rule over votes: what a liar among the voters can and cannot do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtwin_server.votes import CONFIDENCE, Judgement, heard, judge, tolerated, total

NOISE = 10.0
LIES = st.floats(-1e9, 1e9)


def votes(*numbers: float) -> dict[str, float]:
    return {f"site-{place}": number for place, number in enumerate(numbers)}


def test_what_all_find_worse_is_thrown_away() -> None:
    verdict = judge(votes(60, 55, 40, 58), NOISE)
    assert not verdict.kept
    assert (verdict.worse, verdict.voters) == (4, 4)


def test_what_all_find_better_is_kept() -> None:
    assert judge(votes(-60, -5, -40, -58), NOISE).kept


@given(st.lists(st.floats(-200, 0), min_size=2, max_size=9), LIES)
def test_one_liar_cannot_block(honest: list[float], lie: float) -> None:
    """A candidate that no honest site finds worse is kept, whatever one voter says."""
    assert judge(votes(*honest, lie), NOISE).kept


@given(st.lists(st.floats(20, 200), min_size=2, max_size=9), LIES)
def test_one_liar_cannot_push_through(honest: list[float], lie: float) -> None:
    """A candidate that every honest site finds clearly worse is thrown away."""
    assert not judge(votes(*honest, lie), NOISE).kept


@given(st.integers(1, 6), st.data())
def test_as_many_liars_as_are_tolerated(liars: int, data: st.DataObject) -> None:
    voters = 3 * liars + 1
    assert tolerated(voters) == liars
    lies = data.draw(st.lists(LIES, min_size=liars, max_size=liars))
    worse = data.draw(st.lists(st.floats(20, 90), min_size=voters - liars, max_size=voters - liars))
    assert not judge(votes(*lies, *worse), NOISE).kept
    assert judge(votes(*lies, *(-number for number in worse)), NOISE).kept


@pytest.mark.parametrize("voters", [3, 4, 7, 10, 16])
def test_nothing_changed_is_seldom_thrown_away(voters: int) -> None:
    """Fewer than one in twenty where nobody lies; with a liar still fewer than one in six."""
    rng = np.random.default_rng(voters)
    draws = 4000
    noise = rng.normal(0, NOISE, (draws, voters))
    away = np.mean([not judge(votes(*row), NOISE).kept for row in noise])
    noise[:, 0] = 1e9
    lied = np.mean([not judge(votes(*row), NOISE).kept for row in noise])
    assert away < 0.055
    assert lied < 1 / 6


def test_two_votes_are_no_judgement() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        judge(votes(1, 1), NOISE)


def test_who_is_heard() -> None:
    """Held-out patients expected from the reported count, held against the noise."""
    counts = {"large": 3000.0, "middle": 50.0, "small": 48.0}
    assert heard(counts, 0.25, NOISE) == {"large", "middle"}, "50 / 3 = 16.7, 48 / 3 = 16.0"
    assert heard(counts, 0.25, 0.0) == set(counts)


def test_harm_in_small_steps_adds_up() -> None:
    """Ten rounds that each stay below the line are above it together."""
    step = judge(votes(12, 11, 10, 9), NOISE)
    assert step.kept
    together = total([step] * 10)
    assert together is not None
    assert not together.kept
    assert together.harm == pytest.approx(10 * step.harm)
    assert together.noise_sd == pytest.approx(10**0.5 * step.noise_sd)


def test_what_was_thrown_away_does_not_add_up() -> None:
    bad = judge(votes(100, 100, 100, 100), NOISE)
    good = Judgement(harm=-30, noise_sd=NOISE, worse=0, voters=4)
    assert total([bad]) is None
    assert total([bad, good]) == Judgement(harm=-30, noise_sd=NOISE, worse=0, voters=4)
    assert pytest.approx(1.6449, abs=1e-3) == CONFIDENCE
