"""Flower's strategies over the coordinator's grid, with real ClientApps in this process."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from fedtwin.demo.simulation import flower_plan
from fedtwin_client.cohort.rows import CohortRows
from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.content import make_content, read_content
from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.flower import FlowerRule, make_strategy

SIZES = {"a": 90, "b": 140, "c": 60, "d": 110}
WRAPPED = {"noise_multiplier": 0.0, "strategy": "FedAdam", "strategy.eta": 0.3}
FIXED = "DifferentialPrivacyServerSideFixedClipping"
ADAPTIVE = "DifferentialPrivacyServerSideAdaptiveClipping"
STRATEGIES: dict[str, dict] = {
    "FedAvg": {},
    "FedAdam": {"eta": 0.3, "tau": 0.01},
    "FedYogi": {"eta": 0.3, "tau": 0.01},
    "FedAdagrad": {"eta": 0.3, "tau": 0.01},
    "FedAvgM": {"server_momentum": 0.5, "server_learning_rate": 0.8},
    "FedMedian": {},
    "FedTrimmedAvg": {"beta": 0.25},
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 2},
    "Bulyan": {"num_malicious_nodes": 0},
    "FedProx": {"proximal_mu": 0.5},
    FIXED: {**WRAPPED, "clipping_norm": 2.0},
    ADAPTIVE: {
        "noise_multiplier": 0.0,
        "initial_clipping_norm": 0.1,
        "clip_norm_lr": 0.8,
        "clipped_count_stddev": 0.0,
    },
}


def cohorts(plan: StudyPlan) -> dict[str, CohortRows]:
    """Four sites whose patients follow one logistic law."""
    random = np.random.default_rng(5)
    columns = plan.contract.columns
    truth = random.normal(0, 0.6, len(columns))
    made = {}
    for site, patients in SIZES.items():
        features = random.normal(0, 1, (patients, len(columns)))
        labels = (random.random(patients) < expit(features @ truth)).astype(float)
        made[site] = CohortRows(
            subject_ids=np.arange(patients),
            features=features,
            labels=labels,
            holdout=np.zeros(patients, bool),
            columns=columns,
            exclusions={},
            missing={},
            implausible={},
        )
    return made


def log_loss(model: Mapping[str, np.ndarray], rows: Mapping[str, CohortRows]) -> float:
    features = np.concatenate([part.features for part in rows.values()])
    labels = np.concatenate([part.labels for part in rows.values()])
    chance = expit(features @ model["weights"] + model["intercept"])
    return float(-np.mean(labels * np.log(chance) + (1 - labels) * np.log(1 - chance)))


def plan_of(strategy: str, options: dict | None = None, **changes: object) -> StudyPlan:
    sites = {"quorum": 3, "smallest_cohort": 20}
    chosen = STRATEGIES[strategy] if options is None else options
    return flower_plan(strategy, chosen, sites=sites, **changes)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_learns_and_goes_on_after_a_restart(
    strategy: str, flower_in_process: type, tmp_path: Path
) -> None:
    """Six rounds in one life equal three in one and three in the next, to the last bit."""
    plan = plan_of(strategy)
    rows = cohorts(plan)
    whole = flower_in_process(plan, rows, tmp_path / "whole")
    before = log_loss(whole.model, rows)
    at_once = whole.learn(1, 6)
    assert log_loss(at_once, rows) < before - 0.05

    halves = flower_in_process(plan, rows, tmp_path / "halves")
    halves.learn(1, 3)
    resumed = halves.learn(4, 6)
    for name, array in at_once.items():
        np.testing.assert_array_equal(resumed[name], array)


def test_every_strategy_of_flower_is_either_run_or_refused() -> None:
    import flwr.serverapp.strategy as flower

    known = set(flower.__all__) - {"Strategy", "Result"}
    assert known == set(STRATEGIES) | set(REFUSED)


def answers(flower: object, plan: StudyPlan) -> dict[str, dict[str, np.ndarray]]:
    """What each site replies to the first model."""
    content = flower.state.parameters
    return {
        site: read_content(flower.answer("train", site, content).content, flower.blobs).arrays[
            "arrays"
        ]
        for site in SIZES
    }


def test_fedavg_is_the_mean_weighted_by_the_reported_counts(
    flower_in_process: type, tmp_path: Path
) -> None:
    plan = plan_of("FedAvg")
    flower = flower_in_process(plan, cohorts(plan), tmp_path)
    replies = answers(flower, plan)
    expected = sum(SIZES[site] / 400 * reply["weights"] for site, reply in replies.items())
    np.testing.assert_allclose(flower.learn(1, 1)["weights"], expected, rtol=1e-12)


def test_trimming_leaves_out_the_largest_and_the_smallest(
    flower_in_process: type, tmp_path: Path
) -> None:
    plan = plan_of("FedTrimmedAvg")
    flower = flower_in_process(plan, cohorts(plan), tmp_path)
    stacked = np.sort([reply["weights"] for reply in answers(flower, plan).values()], axis=0)
    np.testing.assert_allclose(flower.learn(1, 1)["weights"], stacked[1:3].mean(0), rtol=1e-12)


def test_krum_takes_one_sites_model_whole(flower_in_process: type, tmp_path: Path) -> None:
    plan = plan_of("Krum")
    flower = flower_in_process(plan, cohorts(plan), tmp_path)
    replies = answers(flower, plan)
    model = flower.learn(1, 1)
    assert any(np.array_equal(model["weights"], reply["weights"]) for reply in replies.values())


def test_the_pull_of_fedprox_reaches_the_sites(flower_in_process: type, tmp_path: Path) -> None:
    models = {}
    for mu in (0.0, 0.5):
        plan = plan_of("FedProx", {"proximal_mu": mu})
        flower = flower_in_process(plan, cohorts(plan), tmp_path / str(mu))
        models[mu] = flower.learn(1, 1)["weights"]
    assert np.linalg.norm(models[0.5]) < 0.9 * np.linalg.norm(models[0.0])


REFUSED = {
    "FedXgbBagging": "cannot be checked",
    "FedXgbCyclic": "cannot be checked",
    "QFedAvg": "training loss",
    "DifferentialPrivacyClientSideFixedClipping": "trusts each site to clip",
    "DifferentialPrivacyClientSideAdaptiveClipping": "trusts each site to clip",
}


@pytest.mark.parametrize(
    ("strategy", "options", "sentence"),
    [
        *((name, {}, sentence) for name, sentence in REFUSED.items()),
        ("FedBest", {}, "it has: Bulyan"),
        ("Strategy", {}, "it has: Bulyan"),
        ("FedAvg", {"step": 1}, "unexpected keyword argument 'step'"),
        ("FedAvg", {"min_train_nodes": 4}, "at most the quorum, 3"),
        ("FedAvg", {"min_available_nodes": "all"}, "at most the quorum, 3"),
        ("FedAvg", {"weighted_by_key": "loss"}, "the cohort count that each site reported"),
        ("FedAvg", {"arrayrecord_key": "model"}, "names of records"),
        ("FedAvg", {"fraction_evaluate": 0.5}, "privacy.evaluation_noise"),
        ("FedAvg", {"train_metrics_aggr_fn": "mean"}, "a plan carries none"),
        ("FedAvg", {"fraction_train": "most"}, "failed in round 1"),
        ("FedAvg", {"fraction_train": 0.0}, "makes no model"),
        ("FedAdam", {"eta": 1e308, "tau": 1e-300}, "not finite"),
        ("FedTrimmedAvg", {"beta": 0.7}, "beta"),
        ("Bulyan", {"num_malicious_nodes": 1}, "makes no model of 3 answers"),
        (FIXED, {"noise_multiplier": 0.1}, "clipping_norm"),
        (FIXED, {"strategy": FIXED}, "another wrapper"),
        (FIXED, {"strategy": "QFedAvg"}, "training loss"),
        (FIXED, {"noise_multiplier": 0.1, "clipping_norm": 1.0, "num_sampled_clients": 4}, "less"),
    ],
)
def test_what_cannot_work_is_refused_with_a_sentence(
    strategy: str, options: dict, sentence: str, tmp_path: Path
) -> None:
    with np.errstate(all="ignore"), pytest.raises(PlanError, match=sentence):
        make_strategy(plan_of(strategy, options), BlobStore(tmp_path))


def test_a_part_of_the_sites_is_drawn_and_the_same_part_after_a_crash(
    flower_in_process: type, tmp_path: Path
) -> None:
    plan = flower_plan(
        "FedAvg", {"fraction_train": 0.5}, sites={"quorum": 2, "smallest_cohort": 20}
    )
    flower = flower_in_process(plan, cohorts(plan), tmp_path)

    def drawn(number: int) -> set[str]:
        asked: set[str] = set()

        async def ask(kind: str, contents: Mapping[str, pb.Content]) -> dict[str, pb.Answer]:
            asked.update(contents)
            return {site: flower.answer(kind, site, item) for site, item in contents.items()}

        rule = FlowerRule(plan, flower.blobs)
        asyncio.run(rule.step(number, flower.state, flower.counts, ask))
        return asked

    chosen = [drawn(number) for number in range(1, 9)]
    assert all(len(sites) == 2 for sites in chosen)
    assert len({tuple(sorted(sites)) for sites in chosen}) > 1
    assert [drawn(number) for number in range(1, 9)] == chosen


def changed(answer: pb.Answer, blobs: BlobStore, change: Callable[[dict, dict], None]) -> pb.Answer:
    payload = read_content(answer.content, blobs)
    metrics = {name: dict(fields) for name, fields in payload.metrics.items()}
    config: dict[str, dict] = {}
    change(metrics, config)
    arrays = payload.arrays
    return pb.Answer(
        content=make_content(Payload(arrays=arrays, metrics=metrics, config=config), blobs)
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda metrics, _: metrics["metrics"].update(extra=float("nan")),
        lambda metrics, _: metrics["metrics"].update(note="text"),
        lambda metrics, _: metrics.update(second={"num-examples": 1e12}),
        lambda _, config: config.update(config={"server-round": 99}),
    ],
)
def test_what_one_site_adds_to_its_reply_does_not_reach_the_strategy(
    change: Callable[[dict, dict], None], flower_in_process: type, tmp_path: Path
) -> None:
    """Flower ends the run where replies differ in their metrics; one site must not cause that."""
    plan = plan_of("FedAvg")
    honest = flower_in_process(plan, cohorts(plan), tmp_path / "honest")
    expected = honest.learn(1, 1)
    other = flower_in_process(plan, cohorts(plan), tmp_path / "other")
    usual = other.answer
    other.answer = lambda kind, site, content: (
        changed(usual(kind, site, content), other.blobs, change)
        if site == "b"
        else usual(kind, site, content)
    )
    np.testing.assert_array_equal(other.learn(1, 1)["weights"], expected["weights"])


def test_a_site_that_failed_leaves_the_round_to_the_others(
    flower_in_process: type, tmp_path: Path
) -> None:
    """Also under a wrapper that by itself gives a round up when one reply is an error."""
    plan = plan_of(FIXED)
    flower = flower_in_process(plan, cohorts(plan), tmp_path)

    async def ask(kind: str, contents: Mapping[str, pb.Content]) -> dict[str, pb.Answer]:
        return {
            site: flower.answer(kind, site, content)
            for site, content in contents.items()
            if site != "c"
        }

    rule = FlowerRule(plan, flower.blobs)
    step = asyncio.run(rule.step(1, flower.state, flower.counts, ask))
    assert step.sites == ("a", "b", "d")
    moved = read_content(step.parameters, flower.blobs).arrays["arrays"]["weights"]
    assert np.linalg.norm(moved) > 0.01


def test_a_stopped_study_leaves_no_thread_waiting(flower_in_process: type, tmp_path: Path) -> None:
    plan = plan_of("FedAvg")
    flower = flower_in_process(plan, cohorts(plan), tmp_path)
    threads = threading.active_count()

    async def stop() -> None:
        asked, ended = asyncio.Event(), asyncio.Event()

        async def ask(kind: str, contents: Mapping[str, pb.Content]) -> dict[str, pb.Answer]:
            asked.set()
            try:
                await asyncio.sleep(3600)
            finally:
                ended.set()
            return {}

        rule = FlowerRule(plan, flower.blobs)
        task = asyncio.create_task(rule.step(1, flower.state, flower.counts, ask))
        await asyncio.wait_for(asked.wait(), 20)
        task.cancel()
        await asyncio.wait_for(ended.wait(), 20)

    asyncio.run(stop())
    deadline = time.monotonic() + 20
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= threads
