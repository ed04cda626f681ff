"""The white-box moment test: does a mechanism add the noise, and keep the clip, that it claims?

A release is asked for again and again on the same patients, and on neighbouring sets of patients.
With exact sums s and independent Gaussian noise of standard deviation sd in each of d numbers:

1. On unchanged patients, |release - mean|^2 / sd^2 of n releases is chi-square with (n - 1) d
   degrees of freedom: over all numbers, and for each number by itself.
2. Noise is independent between numbers: for each pair, half the squared sum and half the squared
   difference are chi-square with n - 1 degrees. One noise for several numbers shows there.
3. Noise is independent between releases: for each pair of releases the squared difference and sum
   are chi-square with d degrees (noise that is used again, or taken away again, shows there), and
   for releases a few rounds apart the same is pooled (noise that drifts shows there).
4. k more patients move the mean by at most k times the clipping norm: along the direction of the
   shift in one half of the releases, the shift in the other half exceeds that bound only by noise.
   A forgotten clip shows there, a clip at the wrong norm, and one by record in place of by patient.

Every statistic has an exact distribution; chances are multiplied by the number of comparisons
(Bonferroni), so an honest mechanism raises an alarm with chance ALARM at most.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any, Final

import numpy as np

from fedtwin_twins.audits.finding import Finding
from fedtwin_twins.audits.tails import Floats, normal_tail, two_sided

ALARM: Final = 1e-6
"""Chance that an honest mechanism raises an alarm, at most."""
DRAWS: Final = 400
"""Releases on unchanged patients, at least."""
MEASURED: Final = 2000
"""Numbers measured in them, at least: so many show a quarter too little noise beyond doubt."""
MOST_NUMBERS: Final = 48
"""Numbers whose pairs are looked at; all are where there are fewer."""
LAGS: Final = 8
"""Releases so far apart are compared as pooled pairs."""
BUILD_UP: Final = 12.0
"""A probe's shift should be so many times its noise, where the mechanism clips as claimed."""

Release = Callable[[Any, int], Floats]
"""Patients and the number of the round (or a seed), to what is sent: (numbers,)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What a mechanism promises about each release.

    Attributes:
        patient_bound: how far one patient moves the expected release, at most (Euclidean).
        noise_sd: standard deviation of the noise in each number.
        sampling_variance: variance that the sampling of patients adds along any direction, for
            each patient of a probe; 0 where everybody takes part.
        rounding: how far rounding may move a release beside the patients.
    """

    patient_bound: float
    noise_sd: float
    sampling_variance: float = 0.0
    rounding: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """The unchanged patients and `patients` more, each of whom would move the release a lot."""

    name: str
    rows: Any
    patients: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """What the moment test saw.

    Attributes:
        noise_ratio: standard deviation of the noise over what is claimed.
        shift_ratio: largest shift by a probe over what its patients may cause; none without probes.
        chances: of what was seen under the claim, after Bonferroni, by the name of the comparison.
    """

    noise_ratio: float
    shift_ratio: float | None
    chances: Mapping[str, float]

    @property
    def chance(self) -> float:
        """Of the most surprising comparison, times the number of comparisons."""
        return min(1.0, len(self.chances) * min(self.chances.values()))

    @property
    def blamed(self) -> str:
        """The most surprising comparison."""
        return min(self.chances, key=lambda name: self.chances[name])


def draws_for(numbers: int) -> int:
    """Releases that are needed where each holds so many numbers; even."""
    return max(DRAWS, 2 * ceil(MEASURED / (2 * max(numbers, 1))))


def patients_for_probe(claim: Claim, numbers: int) -> int:
    """How many patients make a probe's shift stand out of the noise in `numbers` numbers."""
    spread = claim.noise_sd * sqrt(8 * max(numbers, 1) / draws_for(numbers))
    return 1 + int(BUILD_UP * spread / claim.patient_bound)


def measure_moments(
    release: Release,
    quiet: Any,
    probes: Sequence[Probe],
    claim: Claim,
    draws: int | None = None,
) -> Moments:
    """Ask a mechanism for releases and hold them against what it claims.

    Args:
        release: the mechanism; called with patients and a number that never comes twice.
        quiet: patients on whom a release varies by its noise alone.
        probes: neighbouring sets of patients; each holds those of `quiet`.
        claim: what the mechanism promises.
        draws: releases on the quiet patients, and half as many on each probe; as many as are
            needed if none are named.

    Raises:
        ValueError: a release is not finite, or has another length than the first.
    """
    numbers = iter(range(1, 10**9))
    if draws is None:
        draws = draws_for(np.ravel(release(quiet, 0)).size)
    seen = _releases(release, quiet, numbers, draws)
    noise = (seen - seen.mean(axis=0)) / claim.noise_sd
    chances = _noise_chances(noise)
    if seen.shape[1] > 1:
        chances |= _between_numbers(noise)
        # A single number comes close to another by chance, and rounding calls them equal.
        chances |= _between_releases(noise)
    chances["between rounds, by lag"] = _by_lag(seen / claim.noise_sd)
    ratios = []
    for probe in probes:
        moved = _releases(release, probe.rows, numbers, draws // 2)
        ratio, chance = _shift(seen, moved, probe.patients, claim)
        ratios.append(ratio)
        chances[f"shift by {probe.name}"] = chance
    freedom = noise.size - noise.shape[1]
    return Moments(
        noise_ratio=sqrt(float((noise**2).sum()) / freedom),
        shift_ratio=max(ratios) if ratios else None,
        chances=chances,
    )


def moments_finding(name: str, seen: Moments) -> Finding:
    """A moment test as a finding: passed where nothing was more surprising than ALARM."""
    shift = "" if seen.shift_ratio is None else f", a patient {seen.shift_ratio:.3f} of the bound"
    return Finding(
        name=name,
        asks=(
            "repeated releases on the same and on neighbouring patients have the noise, the "
            "independence and the bound on one patient that the plan claims"
        ),
        result=seen.chance,
        threshold=ALARM,
        passed=seen.chance >= ALARM,
        reading=(
            f"noise {seen.noise_ratio:.3f} of the claim{shift}; the most surprising of "
            f"{len(seen.chances)} comparisons ({seen.blamed}) has chance {seen.chance:.2g}"
        ),
    )


def _releases(release: Release, rows: Any, numbers: Iterable[int], draws: int) -> Floats:
    """Releases of rounds that never come twice, (draws, numbers)."""
    pairs = zip(range(draws), numbers, strict=False)
    found = [np.ravel(release(rows, number)) for _, number in pairs]
    seen = np.array(found, np.float64)
    if not np.isfinite(seen).all():
        raise ValueError("expected finite releases, got NaN or infinity")
    return seen


def _noise_chances(noise: Floats) -> dict[str, float]:
    freedom = len(noise) - 1
    each = (noise**2).sum(axis=0)
    return {
        "noise, all numbers": two_sided(float(each.sum()), freedom * each.size),
        "noise, each number": _extremes(each, freedom),
        "noise, their sum": two_sided(
            float((noise.sum(axis=1) ** 2).sum()) / noise.shape[1], freedom
        ),
    }


def _between_numbers(noise: Floats) -> dict[str, float]:
    chosen = np.unique(np.linspace(0, noise.shape[1] - 1, MOST_NUMBERS).astype(int))
    products = noise[:, chosen].T @ noise[:, chosen]
    return {"between numbers": _pair_extremes(products, len(noise) - 1)}


def _between_releases(noise: Floats) -> dict[str, float]:
    draws = len(noise)
    products = noise @ noise.T
    return {"between rounds, each pair": _pair_extremes(products, noise.shape[1], 2 / draws)}


def _pair_extremes(products: Floats, freedom: int, centred: float = 0.0) -> float:
    """Squared sums and differences of all pairs; `centred` is what centring took off the sums."""
    upper = np.triu_indices(len(products), 1)
    squares = np.diag(products)
    halves = (squares[:, None] + squares[None, :])[upper] / 2
    sums = (halves + products[upper]) / (1 - centred)
    together = np.concatenate([sums, halves - products[upper]])
    return _extremes(np.clip(together, 0, None), freedom)


def _extremes(values: Floats, freedom: int) -> float:
    """Chance of the smallest and the largest of several chi-square numbers, by Bonferroni."""
    if not values.size:
        return 1.0
    worst = min(two_sided(float(value), freedom) for value in (values.min(), values.max()))
    return min(1.0, worst * values.size)


def _by_lag(seen: Floats) -> float:
    """Pooled sums and differences of releases a few rounds apart; pairs do not overlap."""
    chances = []
    for lag in range(1, LAGS + 1):
        blocks = len(seen) // (2 * lag)
        cut = seen[: blocks * 2 * lag].reshape(blocks, 2, lag, -1)
        for pairs in (cut[:, 0] + cut[:, 1], cut[:, 0] - cut[:, 1]):
            flat = pairs.reshape(blocks * lag, -1)
            square = float(((flat - flat.mean(axis=0)) ** 2).sum()) / 2
            chances.append(two_sided(square, (len(flat) - 1) * flat.shape[1]))
    return min(1.0, min(chances) * len(chances))


def _shift(seen: Floats, moved: Floats, patients: int, claim: Claim) -> tuple[float, float]:
    """The shift over its bound, and the chance of so large a shift within the bound."""
    first = moved[::2].mean(axis=0) - seen[::2].mean(axis=0)
    second = moved[1::2].mean(axis=0) - seen[1::2].mean(axis=0)
    length = float(np.linalg.norm(first))
    if length == 0:
        return 0.0, 1.0
    along = float(second @ first) / length
    noise = claim.noise_sd**2
    moved_variance = (noise + patients * claim.sampling_variance) / len(moved[1::2])
    spread = sqrt(moved_variance + noise / len(seen[1::2]))
    bound = patients * claim.patient_bound
    # A hundred-thousandth for sums in single precision.
    return along / bound, normal_tail((along - bound * (1 + 1e-5) - 2 * claim.rounding) / spread)
