"""Who was in the training set? LiRA on models of the product's own training, at epsilon 1.

A setting that is easy to learn by heart: 500 patients with 50 columns, outcomes by a weak rule and
much chance, a network of 64 hidden units. 96 models are learned, each from a random half of the
patients, by the site's learner and the coordinator's rule; each is attacked with all others as its
shadows (Carlini et al. 2022, arXiv 2112.03570).

Baseline: the same training without clip and noise, attacked in the same run.
"""

import argparse
from collections.abc import Iterator

import numpy as np
from figures import Figure

PATIENTS, COLUMNS, HIDDEN, MODELS = 500, 50, 64, 96
ROUNDS, OPEN_ROUNDS = 30, 120
EPSILON, DELTA, COUNT_NOISE = 1.0, 1e-5, 20.0


def measure(options: argparse.Namespace) -> list[Figure]:
    """The figure of this module: members found where 1 % of others are taken for members."""
    del options
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        private, unprotected = found_as_planned(), found_without_protection()
    finally:
        torch.set_num_threads(threads)
    return [
        Figure(
            id="lira-tpr",
            value=round(private, 5),
            unit="of members, 1 % false positives",
            baseline=round(unprotected, 5),
            goal=0.015,
        )
    ]


def found_as_planned(seed: int = 1) -> float:
    """Share of members found, learned at epsilon 1."""
    from fedtwin_protocol.privacy import noise_multiplier_for

    noise = noise_multiplier_for(EPSILON, DELTA, ROUNDS, COUNT_NOISE)
    return _found(_plan("local", ROUNDS, noise, 1.0, 2.0), seed)


def found_without_protection(seed: int = 1) -> float:
    """Share of members found, learned without clip and noise."""
    return _found(_plan("none", OPEN_ROUNDS, 0.0, 1e6, 0.5), seed)


def _found(plan, seed: int) -> float:
    from fedtwin_twins.audits.membership import attack, confidence, random_halves
    from fedtwin_twins.risk import predict_score

    features, outcomes = _patients(seed)
    taken = random_halves(MODELS, PATIENTS, seed)
    scores = [
        predict_score(model, features) for model in _models(plan, features, outcomes, taken, seed)
    ]
    return attack(confidence(np.array(scores), outcomes), taken).found_at()


def _models(plan, features, outcomes, taken, seed: int) -> Iterator[dict]:
    """Models as they would be released: the site's updates, the coordinator's steps."""
    import tempfile
    from pathlib import Path

    from fedtwin_client.training.learner import make_learner
    from fedtwin_client.training.noise import SeededNoise, noised
    from fedtwin_client.training.training_rows import TrainingRows
    from fedtwin_protocol.blobs import BlobStore
    from fedtwin_protocol.content import make_content, read_content
    from fedtwin_protocol.parameters import initial_parameters
    from fedtwin_protocol.payload import Payload
    from fedtwin_protocol.v1 import exchange_pb2 as pb
    from fedtwin_server.rules import SumRule

    sd = COUNT_NOISE if plan.privacy.mode == "local" else 0.0
    with tempfile.TemporaryDirectory() as folder:
        blobs = BlobStore(Path(folder))
        rule = SumRule(plan, blobs)
        for place, mine in enumerate(taken):
            noise = SeededNoise(seed * 1000 + place)
            rows = TrainingRows(features=features[mine], outcomes=outcomes[mine])
            learner = make_learner(plan, rows)
            count = float(round(noised(np.array([float(mine.sum())]), sd, noise)[0]))
            start = make_content(Payload(arrays={"arrays": initial_parameters(plan)}), blobs)
            state = pb.RoundState(parameters=start)
            for _ in range(plan.training.rounds):
                given = read_content(state.parameters, blobs).arrays["arrays"]
                total = learner.update(given, count, noise)["gradient_sum"]
                step = rule.advance(state, total, count, ["one"])
                state = pb.RoundState(parameters=step.parameters, memory=step.memory)
            yield read_content(state.parameters, blobs).arrays["arrays"]


def _patients(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(PATIENTS, COLUMNS))
    rule = features[:, :5].sum(axis=1) / 5**0.5
    outcomes = generator.random(PATIENTS) < 1 / (1 + np.exp(-rule))
    return features, outcomes.astype(float)


def _plan(mode: str, rounds: int, noise: float, clip: float, rate: float):
    from fedtwin_protocol.study import StudyPlan

    return StudyPlan.model_validate(
        {
            "study": "lira",
            "consortium": "benchmark",
            "title": "Models to be attacked",
            "purpose": "To find members",
            "cohort": {"index": {"codes": ["TEST//index"]}},
            "features": [
                {"name": f"x{k}", "kind": "flag", "codes": ["TEST//x"]} for k in range(COLUMNS)
            ],
            "endpoint": {"name": "event", "kind": "event", "codes": ["TEST//e"], "horizon_days": 1},
            "model": {"family": "network", "hidden": [HIDDEN]},
            "training": {"rounds": rounds, "learning_rate": rate, "momentum": 0.9},
            "privacy": {
                "mode": mode,
                "epsilon": EPSILON,
                "delta": DELTA,
                "clipping_norm": clip,
                "noise_multiplier": noise,
                "cohort_count_noise": COUNT_NOISE,
            },
            "sites": {"quorum": 1},
        }
    )
