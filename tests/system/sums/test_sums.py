"""What a secure sum gives: the exact sum with the plan's noise, whoever vanishes, up to D sites."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fedtwin_protocol import secure_messages as sm
from fedtwin_protocol import sum_steps as steps
from fedtwin_protocol.errors import WireError
from fedtwin_protocol.secure_terms import secure_terms
from fedtwin_protocol.v1 import exchange_pb2 as pb

STEPS = list(steps.STEPS)


def noise_sd(group: Any, parts: int) -> float:
    """Of the sum, in the unit of the numbers."""
    terms, privacy = group.terms, group.plan.privacy
    return privacy.noise_multiplier * privacy.clipping_norm * (parts / terms.honest_present) ** 0.5


@pytest.mark.parametrize("count", [3, 4, 7, 10, 16])
@pytest.mark.parametrize("bits", [32, 64])
def test_everybody_there(sites: Any, count: int, bits: int) -> None:
    group = sites(count, modulus_bits=bits, scale_bits=16 if bits == 32 else 20)
    summed = group.run()
    exact = sum(group.parts.values())
    assert summed.sites == tuple(sorted(group.keys))
    z = (summed.total - exact) / noise_sd(group, count)
    assert np.abs(z).max() < 5
    assert 0.4 < z.std() < 1.8, "the noise is there, and no more of it"


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("count", [4, 10])
def test_any_d_sites_may_vanish_at_any_step(sites: Any, count: int, step: str) -> None:
    group = sites(count)
    gone = set(sorted(group.keys)[1 : 1 + group.terms.may_vanish])
    for later in STEPS[STEPS.index(step) :]:
        group.silent[later] = gone
    summed = group.run()
    before_parts = STEPS.index(step) <= STEPS.index(steps.MASKED)
    there = set(group.keys) - gone if before_parts else set(group.keys)
    assert set(summed.sites) == there
    exact = sum(group.parts[site] for site in there)
    assert np.abs(summed.total - exact).max() < 5 * noise_sd(group, len(there))


def test_others_vanish_at_every_step(sites: Any) -> None:
    """Ten sites, three may vanish: one after the shares, one after its part, one at the end."""
    group = sites(10)
    first, second, third = sorted(group.keys)[2:5]
    group.silent = {
        steps.MASKED: {first},
        steps.CONFIRM: {first, second},
        steps.UNMASK: {first, second, third},
    }
    summed = group.run()
    there = set(group.keys) - {first}
    assert set(summed.sites) == there
    exact = sum(group.parts[site] for site in there)
    assert np.abs(summed.total - exact).max() < 5 * noise_sd(group, 9)


@pytest.mark.parametrize("step", STEPS)
def test_one_more_than_d_makes_no_sum(sites: Any, step: str) -> None:
    group = sites(7)
    gone = set(sorted(group.keys)[: group.terms.may_vanish + 1])
    for later in STEPS[STEPS.index(step) :]:
        group.silent[later] = gone
    with pytest.raises(WireError, match="answers at step"):
        group.run()


@pytest.mark.parametrize("step", STEPS)
def test_a_restart_at_any_step_gives_the_same_sum(sites: Any, step: str) -> None:
    """The coordinator and all sites go down in mid-step; nothing is lost, nothing asked anew."""
    group = sites(4)
    group.silent[step] = set(sorted(group.keys)[:2])
    with pytest.raises(WireError):
        group.run()
    kept = dict(group.seen)
    for site in group.keys:
        group.open(site)
    group.silent.clear()
    answer = group.answer

    def once(site: str, task: pb.Task) -> pb.Content:
        """As the outbox does: what was answered before is answered with the same bytes."""
        _, at = steps.step_of(task.kind)
        return kept[at, site] if (at, site) in kept else answer(site, task)

    group.answer = once
    summed = group.run()
    exact = sum(group.parts.values())
    assert np.abs(summed.total - exact).max() < 5 * noise_sd(group, 4)


def test_sums_follow_one_another(sites: Any) -> None:
    group = sites(4)
    totals = [group.run(number).total for number in (1, 2, 3)]
    assert all(np.abs(a - b).max() > 0 for a, b in pairwise(totals))


def test_only_the_sum_can_be_seen(sites: Any) -> None:
    """Each masked part is uniform over its range, whatever the numbers (chi-square, 256 bins)."""
    group = sites(4, values=100_000)
    for part in group.parts.values():
        part[:] = 7.0
    group.run()
    for site in group.keys:
        frames = _frames(group, site)
        for byte in range(8):
            counts = np.bincount(frames[:, byte], minlength=256)
            statistic = float(((counts - frames.shape[0] / 256) ** 2).sum() / (len(frames) / 256))
            assert statistic < 255 + 7 * (2 * 255) ** 0.5, f"byte {byte} of {site}"


def _frames(group: Any, site: str) -> np.ndarray:
    from fedtwin_protocol.content import read_content

    part = read_content(group.seen[steps.MASKED, site], group.blobs).arrays["arrays"][sm.PART]
    return np.frombuffer(np.ascontiguousarray(part).tobytes(), np.uint8).reshape(-1, 8)


def test_a_sum_cannot_wrap_around(sites: Any) -> None:
    """The largest cohorts that a plan admits, all pulling one way, fit with their noise."""
    group = sites(5, modulus_bits=32, scale_bits=16, largest_cohort=6000)
    most = group.plan.sites.largest_cohort * group.plan.privacy.clipping_norm
    for part in group.parts.values():
        part[:] = most
    summed = group.run()
    assert np.abs(summed.total - 5 * most).max() < 6 * noise_sd(group, 5)


def test_a_plan_whose_sum_could_wrap_around_is_refused(sites: Any) -> None:
    from fedtwin_protocol.errors import PlanError

    group = sites(5, modulus_bits=32, scale_bits=16, largest_cohort=7000)
    with pytest.raises(PlanError, match="largest_cohort to at most"):
        secure_terms(group.plan)
