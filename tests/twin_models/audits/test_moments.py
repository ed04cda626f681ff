"""The moment test raises the alarm for each sabotage of a mechanism, and not for an honest one."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest

from fedtwin_twins.audits.moments import (
    ALARM,
    Claim,
    Moments,
    Probe,
    measure_moments,
    moments_finding,
    patients_for_probe,
)

CLIP, SIGMA, COLUMNS, RECORDS = 0.5, 6.58, 13, 4
CLAIM = Claim(patient_bound=CLIP, noise_sd=SIGMA * CLIP)
Records = np.ndarray[Any, Any]
Noise = Callable[[int], Records]


def fresh(seed: int) -> Noise:
    """Independent noise of the claimed size for each round."""
    return lambda number: (
        CLAIM.noise_sd * np.random.default_rng((seed, number)).standard_normal(COLUMNS)
    )


def clipped(records: Records) -> Records:
    """Mean over each patient's records, then the clip: (patients, records, columns)."""
    means = records.mean(axis=1)
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    return (means * np.minimum(1, CLIP / norms)).sum(axis=0)


def quiet() -> Records:
    return np.random.default_rng(5).normal(size=(50, RECORDS, COLUMNS))


def probe() -> Probe:
    patients = patients_for_probe(CLAIM, COLUMNS)
    far = np.full((patients, RECORDS, COLUMNS), 1e3)
    return Probe(name="unlike patients", rows=np.concatenate([quiet(), far]), patients=patients)


def audit(noise: Noise, exact: Callable[[Records], Records] = clipped) -> Moments:
    return measure_moments(
        lambda records, number: exact(records) + noise(number), quiet(), [probe()], CLAIM
    )


def test_an_honest_mechanism_passes() -> None:
    seen = audit(fresh(1))
    assert seen.chance > 1e-4
    assert seen.noise_ratio == pytest.approx(1, abs=0.04)
    assert seen.shift_ratio == pytest.approx(1, abs=0.2)
    assert moments_finding("moments", seen).passed


def test_false_alarms_are_no_more_frequent_than_stated() -> None:
    """At the level 0.05 instead of 1e-6: about 10 of 200 at most, and each comparison by itself."""
    alarms: dict[str, int] = {}
    for seed in range(200):
        noise = fresh(1000 + seed)
        seen = measure_moments(
            lambda records, number, noise=noise: clipped(records) + noise(number),
            quiet(), [probe()], CLAIM, draws=60,
        )  # fmt: skip
        for name, chance in {**seen.chances, "all": seen.chance}.items():
            alarms[name] = alarms.get(name, 0) + (chance < 0.05)
    # 22 of 200 at a rate of 0.05 has chance 2e-4.
    assert max(alarms.values()) < 22, alarms
    assert alarms["all"] < 22


def scaled(factor: float) -> Noise:
    return lambda number: fresh(2)(number) * factor


def forgets_one_number(number: int) -> Records:
    noise = fresh(2)(number)
    noise[-1] = 0
    return noise


def one_for_all(number: int) -> Records:
    return np.full(COLUMNS, fresh(2)(number)[0])


def one_for_two(number: int) -> Records:
    noise = fresh(2)(number)
    noise[3] = noise[7]
    return noise


def same_again_later(number: int) -> Records:
    """The noise of a round comes back a hundred rounds later, once."""
    return fresh(2)(number if number != 170 else 70)


def takes_it_away_again(number: int) -> Records:
    """Every second round's noise cancels that of the round before."""
    return fresh(2)(number // 2) * (1 if number % 2 else -1)


def drifting(number: int) -> Records:
    """Half of the noise is that of three rounds ago."""
    return (fresh(2)(number) + fresh(2)(number + 3)) / sqrt(2)


SABOTAGED_NOISE = {
    "a quarter too little": (scaled(1 / 1.25), "noise"),
    "a quarter too much": (scaled(1.25), "noise"),
    "none in one number": (forgets_one_number, "noise, each number"),
    "one for all numbers": (one_for_all, "between numbers"),
    "one for two numbers": (one_for_two, "between numbers"),
    "every round the same": (lambda number: fresh(2)(0) + 0 * number, "noise"),
    "used again once": (same_again_later, "between rounds, each pair"),
    "taken away again": (takes_it_away_again, "between rounds"),
    "drifting": (drifting, "between rounds, by lag"),
    "none": (lambda number: np.zeros(COLUMNS) * number, "noise"),
}


@pytest.mark.parametrize("name", SABOTAGED_NOISE)
def test_sabotaged_noise_raises_the_alarm(name: str) -> None:
    noise, shown_by = SABOTAGED_NOISE[name]
    seen = audit(noise)
    assert seen.chance < ALARM
    assert min(p for n, p in seen.chances.items() if n.startswith(shown_by)) < ALARM / 10
    assert not moments_finding("moments", seen).passed


def test_a_quarter_too_little_noise_is_beyond_doubt() -> None:
    assert audit(scaled(1 / 1.25)).chances["noise, all numbers"] < 1e-60


def unclipped(records: Records) -> Records:
    return records.mean(axis=1).sum(axis=0)


def clipped_by_record(records: Records) -> Records:
    flat = records.reshape(-1, COLUMNS)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    return (flat * np.minimum(1, CLIP / norms)).sum(axis=0)


def clipped_wider(records: Records) -> Records:
    means = records.mean(axis=1)
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    return (means * np.minimum(1, 1.5 * CLIP / norms)).sum(axis=0)


def clipped_in_the_largest_number(records: Records) -> Records:
    """Each number is clipped by itself: the norm may be sqrt(columns) as large."""
    return np.clip(records.mean(axis=1), -CLIP, CLIP).sum(axis=0)


@pytest.mark.parametrize(
    "exact", [unclipped, clipped_by_record, clipped_wider, clipped_in_the_largest_number]
)
def test_a_sabotaged_clip_raises_the_alarm(exact: Callable[[Records], Records]) -> None:
    seen = audit(fresh(3), exact)
    assert seen.chances["shift by unlike patients"] < ALARM / 10
    assert seen.shift_ratio is not None
    assert seen.shift_ratio > 1.3


def share(sites: int, dropped: int, share_variance: float) -> Noise:
    """Noise of a sum in which every site adds a share and some are gone."""

    def draw(number: int) -> Records:
        generator = np.random.default_rng((9, number))
        shares = generator.standard_normal((sites - dropped, COLUMNS))
        return shares.sum(axis=0) * sqrt(share_variance)

    return draw


@pytest.mark.parametrize("dropped", [0, 2])
def test_shares_of_the_noise(dropped: int) -> None:
    """Shares sized for the honest survivors pass; shares of 1 / sites fall short when some drop."""
    sites, tolerated, colluding = 7, 2, 2
    least = sites - tolerated - colluding
    variance = CLAIM.noise_sd**2
    claim = Claim(patient_bound=CLIP, noise_sd=CLAIM.noise_sd * sqrt((sites - dropped) / least))

    def seen(share_variance: float) -> Moments:
        noise = share(sites, dropped, share_variance)
        return measure_moments(
            lambda records, number: clipped(records) + noise(number), quiet(), [probe()], claim
        )

    assert seen(variance / least).chance > 1e-4
    assert seen(variance / sites).chance < ALARM
    assert seen(variance / (least + 1)).chance < ALARM


def test_a_release_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        measure_moments(lambda _, __: np.array([np.nan]), quiet(), [], CLAIM)
