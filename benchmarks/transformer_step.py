"""A clipped and noised step of a small transformer beside a plain one, alternating in one process.

Both draw their batch of about 64 patients from 256, each with 128 records of a vocabulary of 2,000
codes, and update 2 layers of width 64 (some 230,000 numbers) on one thread. The private step is the
product's own round at a site: it samples patients one by one, clips each one's gradient and draws
cryptographic noise. The plain one is what a user of torch would write: the same model from torch's
own modules (embedding, linear, layer normalisation, fused attention), with autograd and SGD.

Baseline: Opacus' hooks take 1.5 times a plain step of such a model.
"""

import argparse
import os
from collections.abc import Callable

import numpy as np
from dp_step import alternate, on_one_thread
from figures import Figure

PATIENTS, BATCH, RECORDS, WORDS, WIDTH, HEADS, LAYERS = 256, 64, 128, 2000, 64, 4, 2
REPEATS, WARM_UP = 40, 5


def measure(options: argparse.Namespace) -> list[Figure]:
    """The figure of this module: the ratio of median times."""
    del options
    plain_ms, private_ms = on_one_thread(
        lambda: alternate(_plain_step(), _private_step(), REPEATS, WARM_UP)
    )
    return [
        Figure(
            id="transformer-dp-step-ratio",
            value=round(private_ms / plain_ms, 3),
            unit="of a plain SGD step",
            baseline=1.5,
            goal=1.2,
        )
    ]


def _patients() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    codes = rng.integers(1, WORDS + 1, (PATIENTS, RECORDS)).astype(np.int32)
    numbers = rng.normal(size=(PATIENTS, RECORDS, 3)).astype(np.float32)
    return codes, numbers, np.ones((PATIENTS, 1)), (rng.random(PATIENTS) < 0.5).astype(float)


def _plain_step() -> Callable[[], None]:
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.mix, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            shape = (len(values), RECORDS, 3, HEADS, WIDTH // HEADS)
            query, key, value = self.mix(self.norm1(values)).view(shape).permute(2, 0, 3, 1, 4)
            seen = nn.functional.scaled_dot_product_attention(query, key, value)
            values = values + self.out(seen.transpose(1, 2).reshape(len(values), RECORDS, WIDTH))
            inner = nn.functional.gelu(self.up(self.norm2(values)), approximate="tanh")
            return values + self.down(inner)

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.numbers = nn.Embedding(WORDS + 1, WIDTH), nn.Linear(3, WIDTH)
            self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
            self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH + 1, 1)

        def forward(self, codes, numbers, features) -> torch.Tensor:
            read = self.norm(self.blocks(self.embed(codes) + self.numbers(numbers))).mean(1)
            return self.head(torch.cat([read, features], 1))[:, 0]

    codes, numbers, features, outcomes = _patients()
    data = [torch.tensor(codes, dtype=torch.int64)]
    data += [torch.tensor(part, dtype=torch.float32) for part in (numbers, features, outcomes)]
    model, loss = Reader(), nn.BCEWithLogitsLoss()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        chosen = torch.randint(PATIENTS, (BATCH,))
        *inputs, labels = (part[chosen] for part in data)
        optimiser.zero_grad(set_to_none=True)
        loss(model(*inputs), labels).backward()
        optimiser.step()

    return step


def _private_step() -> Callable[[], None]:
    from fedtwin_client.cohort.sequences import Sequences
    from fedtwin_client.training.learner import make_learner
    from fedtwin_client.training.noise import CryptographicNoise
    from fedtwin_client.training.training_rows import TrainingRows
    from fedtwin_protocol.parameters import initial_parameters

    plan = _plan()
    codes, numbers, features, outcomes = _patients()
    rows = TrainingRows(
        features=features, outcomes=outcomes, sequences=Sequences(codes=codes, numbers=numbers)
    )
    learner = make_learner(plan, rows)
    noise = CryptographicNoise(os.urandom(32))
    parameters = initial_parameters(plan)

    def step() -> None:
        nonlocal parameters
        parameters = learner.update(parameters, float(PATIENTS), noise)

    return step


def _plan():
    from fedtwin_protocol.study import StudyPlan

    return StudyPlan.model_validate(
        {
            "study": "transformer-step",
            "consortium": "benchmark",
            "title": "A step",
            "purpose": "To be timed",
            "cohort": {"index": {"codes": ["TEST//index"]}},
            "features": [{"name": "x", "kind": "flag", "codes": ["TEST//x"]}],
            "sequence": {
                "vocabulary": [{"code": f"TEST//{k}"} for k in range(WORDS)],
                "most_records": RECORDS,
            },
            "endpoint": {"name": "event", "kind": "event", "codes": ["TEST//e"], "horizon_days": 1},
            "model": {"family": "transformer", "width": WIDTH, "layers": LAYERS, "heads": HEADS},
            "training": {"mechanism": "local_steps", "rounds": 1, "learning_rate": 0.1},
            "aggregation": {"rule": "mean"},
            "privacy": {
                "mode": "local",
                "epsilon": 10,
                "delta": 1e-5,
                "clipping_norm": 1,
                "noise_multiplier": 1,
                "sampling_rate": BATCH / PATIENTS,
            },
            "sites": {"quorum": 1},
        }
    )
