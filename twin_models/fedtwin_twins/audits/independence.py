"""The independence test: does any patient change what another patient contributes?

Sums of clipped contributions protect a patient only if each contribution depends on that patient
alone. Then the exact sum f is additive: f(A and B together) = f(A) + f(B) for all disjoint sets of
patients, and it does not depend on their order. Conversely, if f is additive over all sets, f is a
sum of contributions of single patients. Batch statistics (x - mean), normalisation layers, padding
to the longest record of the batch and shared scaling all break this, and none of them is seen by a
test of the clip alone.

Where a sum holds something of all patients of a site together (their common shift), it cannot be
additive; its proven bound is tested instead, by leaving out every patient in turn: `measure_move`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_twins.audits.finding import Finding
from fedtwin_twins.audits.tails import Floats

TOLERANCE: Final = 1e-3
"""Largest mixing that counts as rounding (of single precision), in units of the clipping norm."""
SPLITS: Final = 12

Rows = Mapping[str, NDArray[Any]]
"""Arrays by name, each with patients along its first axis."""
ExactSum = Callable[[Rows], Floats]


def measure_mixing(exact_sum: ExactSum, rows: Rows, bound: float, seed: int) -> float:
    """How much of one patient's contribution depends on others, in units of the bound.

    Args:
        exact_sum: the mechanism's sum without noise, (numbers,).
        rows: at least eight patients, some of them unlike the others.
        bound: the clipping norm.
        seed: of the splits.

    Returns:
        the largest |f(A and B) - f(A) - f(B)| / bound over single patients and random halves, and
        the same for another order of the patients.

    Raises:
        ValueError: too few patients, or a sum that is not finite.
    """
    count = len(next(iter(rows.values())))
    if count < 8:
        raise ValueError(f"expected at least 8 patients, got {count}")
    generator = np.random.Generator(np.random.PCG64(seed))
    worst = 0.0
    for split in range(SPLITS):
        order = generator.permutation(count)
        alone = 1 if split % 2 else count // 2  # a single patient, or half of them
        company = max(alone + 1, int(generator.integers(alone + 1, count + 1)))
        parts = (order[:alone], order[alone:company])
        whole = exact_sum(_take(rows, np.sort(order[:company])))
        apart = [exact_sum(_take(rows, part)) for part in parts]
        difference = float(np.linalg.norm(whole - apart[0] - apart[1]))
        if not np.isfinite(difference):
            raise ValueError("expected finite sums, got NaN or infinity")
        worst = max(worst, difference / bound)
    return worst


def measure_move(exact_sum: ExactSum, rows: Rows, bound: float) -> float:
    """How far leaving out one patient moves the whole sum, at most, in units of the bound.

    Args:
        exact_sum: the mechanism's sum without noise, (numbers,).
        rows: the patients, some of them unlike the others.
        bound: the clipping norm.

    Raises:
        ValueError: a sum that is not finite.
    """
    count = len(next(iter(rows.values())))
    worst = 0.0
    for company in range(1, count + 1):  # of few and of many others
        kept = np.arange(company)
        whole = exact_sum(_take(rows, kept))
        for left_out in {0, company // 2, company - 1}:
            without = exact_sum(_take(rows, np.delete(kept, left_out)))
            move = float(np.linalg.norm(whole - without))
            if not np.isfinite(move):
                raise ValueError("expected finite sums, got NaN or infinity")
            worst = max(worst, move / bound)
    return worst


def move_finding(name: str, move: float) -> Finding:
    """A test of the whole sum's bound as a finding."""
    return Finding(
        name=name,
        asks="no patient moves the sum, all that it shares with others included, beyond the bound",
        result=move,
        threshold=1 + TOLERANCE,
        passed=move <= 1 + TOLERANCE,
        reading=f"leaving out one patient moves the sum by at most {move:.3g} of the bound",
    )


def mixing_finding(name: str, mixing: float) -> Finding:
    """An independence test as a finding."""
    return Finding(
        name=name,
        asks="changing one patient changes no other patient's contribution",
        result=mixing,
        threshold=TOLERANCE,
        passed=mixing <= TOLERANCE,
        reading=(
            f"sums of patients apart and together differ by at most {mixing:.2g} of one patient's "
            f"bound, over {SPLITS} splits"
        ),
    )


def _take(rows: Rows, chosen: NDArray[np.intp]) -> Rows:
    return {name: array[chosen] for name, array in rows.items()}
