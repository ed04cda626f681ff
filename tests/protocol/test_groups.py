"""Who sums with whom: everybody once, nobody's choice, another deal each round."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtwin_protocol.groups import assign_groups, group_sizes

SITES = [f"site-{number:02}" for number in range(11)]


@given(st.integers(3, 8), st.integers(0, 20), st.integers(1, 10_000))
def test_everybody_is_in_one_group_of_three_or_more(
    groups: int, more: int, round_number: int
) -> None:
    sites = [f"s{number}" for number in range(3 * groups + more)]
    found = assign_groups("ab" * 32, round_number, sites, groups)
    assert sorted(site for group in found for site in group) == sorted(sites)
    assert tuple(sorted(map(len, found))) == tuple(sorted(group_sizes(len(sites), groups)))
    assert min(map(len, found)) >= 3
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_the_order_of_the_names_does_not_count() -> None:
    assert assign_groups("00" * 32, 4, SITES, 3) == assign_groups("00" * 32, 4, SITES[::-1], 3)


def test_plan_and_round_decide() -> None:
    deals = {assign_groups(digest * 32, number, SITES, 3) for digest in ("aa", "bb")
             for number in range(1, 20)}  # fmt: skip
    assert len(deals) > 35


def test_two_sites_meet_as_often_as_chance_has_it() -> None:
    """Eleven in groups of 4, 4 and 3: a pair meets in (6 + 6 + 3) of 55 deals."""
    together: Counter[tuple[str, str]] = Counter()
    rounds = 3000
    for number in range(1, rounds + 1):
        for group in assign_groups("cd" * 32, number, SITES, 3):
            together.update((a, b) for a in group for b in group if a < b)
    assert len(together) == 55
    expected = rounds * 15 / 55
    assert all(abs(times - expected) < 6 * expected**0.5 for times in together.values())


def test_one_group_is_everybody() -> None:
    assert assign_groups("ef" * 32, 1, SITES, 1) == (tuple(SITES),)


@pytest.mark.parametrize(
    ("sites", "groups", "sentence"),
    [(8, 3, "at least 9 sites"), (12, 2, "cannot outvote"), (0, 3, "the plan names 0")],
)
def test_too_few(sites: int, groups: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        group_sizes(sites, groups)


def test_a_site_named_twice() -> None:
    with pytest.raises(ValueError, match="named twice"):
        assign_groups("ab" * 32, 1, [*SITES, SITES[0]], 3)
