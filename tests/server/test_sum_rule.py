"""What the coordinator makes of sums: a step, or, of a population study, the sum itself."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.content import make_content, read_content
from fedtwin_protocol.parameters import initial_parameters
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.rules import SumRule

from .rounds.conftest import plan_of

COUNTS = {"a": 30.0, "b": 50.0, "c": 20.0}


def population_plan(**changes: Any) -> StudyPlan:
    return plan_of(
        "values",
        question="population",
        population={},
        model={"family": "linear_mixed_model"},
        training={"mechanism": "moments", "rounds": 1, "learning_rate": 1},
        endpoint={"name": "e", "kind": "value", "codes": ["TEST//e"], "horizon_days": 1},
        privacy__evaluation_noise=None,
        **changes,
    )


def made(plan: StudyPlan, blobs: BlobStore, sums: Mapping[str, Any]) -> tuple[Any, pb.RoundState]:
    """The arrays after one round of these sums, and the state before."""
    arrays = initial_parameters(plan)
    state = pb.RoundState(parameters=make_content(Payload(arrays={"arrays": arrays}), blobs))

    async def ask(kind: str, contents: Mapping[str, pb.Content]) -> Mapping[str, pb.Answer]:
        assert kind == "train"
        assert set(contents) == set(COUNTS)
        return {
            site: pb.Answer(
                content=make_content(Payload(arrays={"arrays": {"gradient_sum": total}}), blobs)
            )
            for site, total in sums.items()
        }

    step = asyncio.run(SumRule(plan, blobs).step(1, state, COUNTS, ask))
    assert step.sites == tuple(sorted(sums))
    return read_content(step.parameters, blobs).arrays["arrays"], state


def test_the_sum_of_moments_is_kept_beside_how_many_sites_are_in_it(tmp_path: Path) -> None:
    plan, blobs = population_plan(), BlobStore(tmp_path)
    generator = np.random.default_rng(3)
    sums = {site: generator.standard_normal(10 + 1 + 10) for site in COUNTS}
    arrays, state = made(plan, blobs, sums)
    (spec,) = SumRule(plan, blobs).expected(state.parameters)
    assert spec.shape == (21,)
    flat = np.concatenate([arrays[name] for name in ("moments", "patients", "site_moments")])
    assert flat == pytest.approx(sum(sums.values()))
    assert arrays["sites"].tolist() == [3.0]


def test_a_site_that_vanished_is_not_counted(tmp_path: Path) -> None:
    plan, blobs = population_plan(), BlobStore(tmp_path)
    arrays, _ = made(plan, blobs, {"a": np.ones(21), "c": np.ones(21)})
    assert arrays["moments"] == pytest.approx(np.full(10, 2.0))
    assert arrays["sites"].tolist() == [2.0]


def test_the_median_of_moments_leaves_one_liar_alone(tmp_path: Path) -> None:
    """Per patient, times all patients: what honest sites agree on stays."""
    plan, blobs = population_plan(aggregation={"robust": "median"}), BlobStore(tmp_path)
    honest = {site: COUNTS[site] * np.linspace(0.01, 0.03, 21) for site in ("a", "b")}
    arrays, _ = made(plan, blobs, honest | {"c": np.full(21, -4.0)})
    assert arrays["moments"] == pytest.approx(100 * np.linspace(0.01, 0.03, 21)[:10])
