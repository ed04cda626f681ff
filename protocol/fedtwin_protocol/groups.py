"""Who sums with whom when a round's sums are made in groups.

A secure sum hides each site's part, a liar's too. Where there are enough sites, a round's sum is
made in several groups instead: each group's sum is as well hidden and as noised as the whole would
be, and the coordinator puts the groups' means together robustly, so that a liar spoils its group
and no more.

The assignment follows from the plan's hash and the round, so that neither the coordinator nor a
site can choose who sits with whom; everybody computes it alike: sites in the order of
SHA-256(plan hash / round / name) are dealt out like cards.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

SMALLEST_GROUP: Final = 3
"""A sum of fewer sites hides too little (spec of secure sums: no sum of fewer than three)."""
FEWEST_GROUPS: Final = 3
"""Of two groups nobody can tell which one is spoilt."""


def group_sizes(sites: int, groups: int) -> tuple[int, ...]:
    """How many sites each group has; sizes differ by one at most.

    Args:
        sites: number of sites that the plan names.
        groups: number of groups; one is everybody together.

    Raises:
        ValueError: too few groups to be told apart, or too few sites for them.
    """
    if groups > 1 and groups < FEWEST_GROUPS:
        raise ValueError(
            f"{groups} groups cannot outvote a spoilt one: expected 1 group, or at least "
            f"{FEWEST_GROUPS}"
        )
    if groups > 1 and sites < groups * SMALLEST_GROUP:
        raise ValueError(
            f"{groups} groups need at least {groups * SMALLEST_GROUP} sites named in "
            f"sites.invited, {SMALLEST_GROUP} a group; the plan names {sites}"
        )
    smaller, larger = divmod(sites, groups)
    return tuple(smaller + (place < larger) for place in range(groups))


def assign_groups(
    plan_hash: str, round_number: int, sites: Iterable[str], groups: int
) -> tuple[tuple[str, ...], ...]:
    """The groups of a round.

    Args:
        plan_hash: of the signed plan, hexadecimal.
        round_number: from 1.
        sites: all sites that the plan names, present or not; their order does not count.
        groups: how many groups.

    Returns:
        the groups' sites, each group in alphabetical order; every site is in one of them.

    Raises:
        ValueError: see `group_sizes`; or a site is named twice.
    """
    named = list(sites)
    if len(set(named)) != len(named):
        raise ValueError(f"a site is named twice: {', '.join(sorted(named))}")
    group_sizes(len(named), groups)
    drawn = sorted(
        named, key=lambda site: sha256(f"{plan_hash}/{round_number}/{site}".encode()).digest()
    )
    return tuple(tuple(sorted(drawn[place::groups])) for place in range(groups))
