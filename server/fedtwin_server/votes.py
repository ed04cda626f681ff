"""When a round's model is kept: the rule over the sites' votes. No input or output here.

A vote is a sum over a site's held-out patients, positive where they are worse off, noised at the
site with sd s (`fedtwin_protocol.votes`). Any of the voters may lie, and say any number.

1. Heard are sites whose held-out patients, as many as their reported cohort and the plan's fraction
   let expect, could be told from the noise if every one of them were as badly off as can be:
   expected number >= 1.645 s. The others abstain: they are not asked, and not charged. This follows
   from public numbers, so that to abstain says nothing about patients.
2. T = max(1, (V - 1) // 3) of V voters may lie: the share that secure sums tolerate as well. The T
   highest and the T lowest votes are left out; a liar's is left out, or lies between two honest
   ones (Yin et al. 2018, arXiv 1803.01498, section 3). So no T voters can have a model thrown away
   that the others find no worse, nor kept that all others find clearly worse.
3. A candidate is thrown away if the sum of the V - 2T votes that are left exceeds 1.645 s
   sqrt(V - 2T). Where nobody lies and nothing has changed, that happens to fewer than one candidate
   in twenty; it costs a round, and no patient anything. T liars that vote against everything
   leave the higher ones of the honest votes, and raise it: to one in eight of 5 voters, three in
   ten of 10, six in ten of 20. A higher line would let more harm through, so it stays; a candidate
   that helps by more than the noise passes all the same.
4. Harm that hides below that in every round adds up: `total` holds the sums of all kept rounds
   together against the same line.

Votes have their own noise and were paid for at the sites; all of this is post-processing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Final

from fedtwin_protocol.votes import FEWEST_VOTERS

CONFIDENCE: Final = 1.6449
"""Standard deviations that a normal variable exceeds once in twenty draws."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What the votes on one candidate come to.

    Attributes:
        harm: sum of the votes that count, in patients; positive: worse off.
        noise_sd: sd of the noise in it, if the votes left out had been drawn by lot.
        worse: how many of the voters say that their patients are worse off.
        voters: how many voted.
    """

    harm: float
    noise_sd: float
    worse: int
    voters: int

    @property
    def kept(self) -> bool:
        """Whether the candidate is kept."""
        return self.harm <= CONFIDENCE * self.noise_sd


def tolerated(voters: int) -> int:
    """How many of so many voters may lie."""
    return max(1, (voters - 1) // 3)


def heard(counts: Mapping[str, float], holdout_fraction: float, noise_sd: float) -> set[str]:
    """Sites whose votes can be told from the noise.

    Args:
        counts: reported (noised) number of training patients by site.
        holdout_fraction: of the plan, below 1.
        noise_sd: of a vote.
    """
    per_trained = holdout_fraction / (1 - holdout_fraction)
    return {site for site, count in counts.items() if count * per_trained >= CONFIDENCE * noise_sd}


def judge(votes: Mapping[str, float], noise_sd: float) -> Judgement:
    """Judge a candidate.

    Args:
        votes: finite, by site; at least three.
        noise_sd: of each vote; 0 where none was added.

    Raises:
        ValueError: fewer than three votes.
    """
    if len(votes) < FEWEST_VOTERS:
        raise ValueError(f"expected at least {FEWEST_VOTERS} votes, got {len(votes)}")
    ordered = sorted(votes.values())
    liars = tolerated(len(ordered))
    count = ordered[liars:-liars]
    return Judgement(
        harm=sum(count),
        noise_sd=noise_sd * sqrt(len(count)),
        worse=sum(vote > 0 for vote in ordered),
        voters=len(ordered),
    )


def total(judgements: Iterable[Judgement]) -> Judgement | None:
    """The kept candidates together: how the last one compares with the start; none: none was kept.

    Each vote compares a candidate with the one before it, so that their sum compares the last with
    the first (up to the clipping of single patients).
    """
    kept = [one for one in judgements if one.kept]
    if not kept:
        return None
    return Judgement(
        harm=sum(one.harm for one in kept),
        noise_sd=sqrt(sum(one.noise_sd**2 for one in kept)),
        worse=kept[-1].worse,
        voters=kept[-1].voters,
    )
