"""Bounds on sums and on moves: never below an honest site, not far above the worst one."""

import asyncio
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtwin_client.training.learner import LocalSteps, TrainingRows
from fedtwin_client.training.noise import SeededNoise
from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.content import distance, make_content
from fedtwin_protocol.errors import WireError
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.admission import ArraySpec, admit_updates, largest_norm
from fedtwin_server.bounds import (
    RefusedSumError,
    check_sum,
    longest_move,
    longest_norm,
    site_noise_sd,
    usual_norm,
)

VALUES = 14


def plan_of(**changes: Any) -> StudyPlan:
    value: dict[str, Any] = {
        "study": "bounds",
        "consortium": "demo",
        "title": "A study",
        "purpose": "To be attacked",
        "cohort": {"index": {"codes": ["TEST//index"]}},
        "features": [{"name": "age", "kind": "age"}, {"name": "sex", "kind": "sex"}],
        "endpoint": {"name": "event", "kind": "event", "codes": ["TEST//e"], "horizon_days": 1},
        "model": {"family": "logistic_regression"},
        "training": {"rounds": 3, "learning_rate": 0.5},
        "privacy": {
            "mode": "local",
            "epsilon": 10,
            "delta": 1e-5,
            "clipping_norm": 2.0,
            "noise_multiplier": 6.58,
            "cohort_count_noise": 20.0,
        },
        "sites": {"quorum": 2},
    }
    for part, change in changes.items():
        value[part] = {**value[part], **change} if part in value else change
    return StudyPlan.model_validate(value)


def patients_in_one_direction(count: int) -> np.ndarray:
    """The longest exact sum: every patient at the clipping norm, all the same way."""
    direction = np.ones(VALUES) / np.sqrt(VALUES)
    return 2.0 * count * direction


@pytest.mark.parametrize("count", [20, 85, 3000])
def test_the_worst_honest_site_stays_far_inside(count: int) -> None:
    """Where the reported count is right: in 20,000 draws the bound is not even approached.

    The margin to the longest of them is what the rare draws need: 6 sd of the count among it.
    """
    plan, rng = plan_of(), np.random.default_rng(count)
    sd = site_noise_sd(plan)
    noise = rng.normal(0, sd, (20_000, VALUES))
    norms = np.linalg.norm(patients_in_one_direction(count) + noise, axis=1)
    assert norms.max() < largest_norm(plan, VALUES, count)
    needed_for_count = 2.0 * (6 * 20 + 1)
    assert largest_norm(plan, VALUES, count) < norms.max() + needed_for_count + 4 * sd


def test_the_chance_of_an_honest_site_beyond_it() -> None:
    """Below 1e-8 by the exact distribution, in every direction and for every size of model.

    Without patients the noise's norm is chi distributed; with many, what counts is the normal
    component along the sum, and the others' chi.
    """
    from scipy.stats import chi, norm

    for values in (1, 2, 14, 1000, 10**6):
        bound = longest_norm(values, 0.0, 1.0, 1.0)
        assert chi.sf(bound, values) < 1e-9, values
        for patients in (1.0, 100.0, 1e5):
            reach = longest_norm(values, patients, 1.0, 1.0)
            along = np.linspace(-9, 9, 4001)
            rest = np.sqrt(np.maximum(reach**2 - (patients + along) ** 2, 0.0))
            beyond = chi.sf(rest, values - 1) if values > 1 else (rest == 0).astype(float)
            chance = np.trapezoid(norm.pdf(along) * beyond, along)
            assert chance < 1e-8, (values, patients)
    assert norm.sf(6) < 1e-8, "of the count's noise"


def test_a_hundred_times_the_update_is_beyond_it() -> None:
    """A mean gradient of a tenth of the clipping norm is enough, at VA's 85 patients."""
    plan, rng = plan_of(), np.random.default_rng(0)
    honest = 0.1 * patients_in_one_direction(85)
    for _ in range(200):
        update = honest + rng.normal(0, site_noise_sd(plan), VALUES)
        assert np.linalg.norm(-100 * update) > largest_norm(plan, VALUES, 85 + 3 * 20)


def test_what_is_usual_shortens_nobody_who_is() -> None:
    """An honest sum reaches it only if all patients pull one way; then it loses the noise's part.

    Gradients of real tables at their very first step are half as long as that.
    """
    plan, rng = plan_of(), np.random.default_rng(3)
    sd = site_noise_sd(plan)
    half = 0.7 * patients_in_one_direction(85)
    norms = np.linalg.norm(half + rng.normal(0, sd, (5000, VALUES)), axis=1)
    assert np.mean(norms > usual_norm(VALUES, 85, 2.0, sd)) < 0.05
    assert usual_norm(VALUES, 85, 2.0, sd) < 0.5 * largest_norm(plan, VALUES, 85)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
def test_a_decoded_sum_that_no_patients_can_make(bad: float) -> None:
    total = np.zeros(VALUES)
    total[3] = bad
    with pytest.raises(RefusedSumError, match="somebody sent what no patients can"):
        check_sum(total, patients=500, clipping_norm=1.0, noise_sd=6.0, whose="the sum of round 3")


def test_a_decoded_sum_of_honest_sites() -> None:
    total = np.full(VALUES, 500 / math.sqrt(VALUES))
    check_sum(total, patients=500, clipping_norm=1.0, noise_sd=6.0, whose="the sum")
    with pytest.raises(RefusedSumError):
        check_sum(1.3 * total, patients=500, clipping_norm=1.0, noise_sd=6.0, whose="the sum")


def local(**training: Any) -> StudyPlan:
    return plan_of(
        training={"mechanism": "local_steps", "learning_rate": 0.3, **training},
        aggregation={"rule": "mean"},
        model={"l2": 0.05},
        privacy={"sampling_rate": 0.3, "noise_multiplier": 1.5},
    )


@pytest.mark.parametrize("steps", [1, 10, 100])
@pytest.mark.parametrize("proximal", [0.0, 0.4])
def test_an_honest_site_moves_no_further(steps: int, proximal: float) -> None:
    """The real learner, with patients who pull one way and a reported count 3 sd too low."""
    plan = local(local_steps=steps)
    if proximal:
        options = {"proximal_mu": proximal}
        plan = plan.model_copy(update={"aggregation": plan.aggregation.model_copy(
            update={"rule": "flower", "strategy": "FedProx", "options": options})})  # fmt: skip
    count, reported = 160, 100.0
    rows = TrainingRows(features=np.full((count, 2), 3.0), outcomes=np.ones(count))
    start = {"weights": np.array([-5.0, 2.0]), "intercept": np.array([-3.0])}

    def gradient(patients: TrainingRows, _: Any) -> np.ndarray:
        return -2.0 * len(patients) * np.ones(3) / np.sqrt(3)

    moved = []
    for seed in range(20):
        learner = LocalSteps(plan, rows, gradient)
        after = learner.update(start, reported, SeededNoise(seed), proximal)
        moved.append(np.linalg.norm(np.concatenate([after[k] - start[k] for k in start])))
    bound = longest_move(plan, 3, reported, float(np.sqrt(38)))
    assert max(moved) < bound
    if not proximal:
        assert bound < 4 * max(moved), "the count's slack of 6 sd, of which 3 are used, and noise"


@pytest.mark.parametrize(
    ("family", "kind"), [("linear_regression", "value"), ("poisson_regression", "count")]
)
def test_every_built_in_family_is_held_to_its_longest_move(
    tmp_path: Path, family: str, kind: str
) -> None:
    endpoint = {"name": "asked", "kind": kind, "codes": ["TEST//e"], "horizon_days": 1}
    plan = local(local_steps=2, learning_rate=0.1).model_dump()
    plan |= {"model": {"family": family}, "endpoint": endpoint}
    asked, blobs = StudyPlan.model_validate(plan), BlobStore(tmp_path)
    start = make_content(Payload(arrays={"arrays": {"weights": np.full(3, 4.0)}}), blobs)
    expected = [ArraySpec(name="weights", dtype="float64", shape=(3,))]
    admit = admit_updates(asked, start, expected, (), {"site": 100.0}, blobs)
    bound = longest_move(asked, 3, 100.0, float(np.sqrt(48)))

    def answer(length: float) -> pb.Answer:
        arrays = {"weights": np.full(3, 4.0) + length / np.sqrt(3)}
        metrics = {"metrics": {"num-examples": 100.0}}
        return pb.Answer(
            content=make_content(Payload(arrays={"arrays": arrays}, metrics=metrics), None)
        )

    asyncio.run(admit("site", answer(0.99 * bound)))
    with pytest.raises(WireError, match="the update moves the model by"):
        asyncio.run(admit("site", answer(1.01 * bound)))


def test_steps_that_grow_have_a_finite_bound() -> None:
    plan = local(local_steps=100_000, learning_rate=500.0)
    assert math.isfinite(longest_move(plan, 3, 100.0, 1.0))


@pytest.mark.parametrize("size", [10, 100_000])
def test_distance_of_contents(tmp_path: Any, size: int) -> None:
    blobs = BlobStore(tmp_path)
    rng = np.random.default_rng(0)
    contents, flat = [], []
    for _ in range(2):
        arrays = {"a": rng.normal(size=size), "b": rng.normal(size=(3, 2)).astype(np.float32)}
        flat.append(np.concatenate([np.ravel(array) for array in arrays.values()]))
        contents.append(make_content(Payload(arrays={"arrays": arrays}), blobs))
    expected = np.linalg.norm(flat[0] - flat[1])
    assert distance(*contents, blobs) == pytest.approx(expected, rel=1e-6)
    assert distance(contents[0], contents[0], blobs) == 0
    other = make_content(Payload(arrays={"arrays": {"a": np.zeros(3)}}), blobs)
    with pytest.raises(WireError, match="different array tables"):
        distance(contents[0], other, blobs)
    arrays = {"a": np.full(size, np.nan), "b": np.zeros((3, 2), np.float32)}
    broken = make_content(Payload(arrays={"arrays": arrays}), blobs)
    assert distance(broken, contents[0], blobs) == math.inf
