"""Who is given which arm: permuted blocks, after the prognostic score is frozen.

Every block holds each arm as often as its share says, in a random order. A block's order is the
order of uniform numbers that belong to its patients, so that it does not change when the trial
grows. The allocation carries the digest of the score that was frozen before it; the analysis takes
no other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedtwin_twins.trials.prognosis import FrozenScore
from fedtwin_twins.trials.streams import Integers, Streams


@dataclass(frozen=True, kw_only=True, slots=True)
class Allocation:
    """Arms of patients.

    Attributes:
        arm: place of each patient's arm, (patients,).
        score_digest: of the score that was frozen before; none if no score is used.
    """

    arm: Integers
    score_digest: str | None


def allocate(shares: Sequence[int], streams: Streams, score: FrozenScore | None) -> Allocation:
    """Randomise patients to arms.

    Args:
        shares: how often each arm is in a block, such as (1, 1) or (2, 1).
        streams: of these patients, all in one replicate and from its first one on.
        score: frozen before, or none.

    Raises:
        ValueError: a share is below 1, or patients are not those of one replicate from the first.
    """
    if min(shares) < 1 or streams.first or len(streams.replicates) != 1:
        raise ValueError("expected shares of at least 1, and one replicate from its first patient")
    block = np.repeat(np.arange(len(shares)), shares)
    size = len(block)
    blocks = -(-streams.count // size)
    whole = Streams(
        seed=streams.seed, replicates=streams.replicates, first=0, count=blocks * size
    ).uniforms("allocation")
    order = np.argsort(whole.reshape(blocks, size), axis=1, kind="stable")
    arms = np.empty((blocks, size), dtype=np.int64)
    np.put_along_axis(arms, order, np.broadcast_to(block, (blocks, size)), axis=1)
    return Allocation(
        arm=arms.reshape(-1)[: streams.count],
        score_digest=None if score is None else score.digest,
    )
