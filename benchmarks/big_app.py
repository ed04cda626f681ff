"""A ClientApp whose training is nothing: it answers with random float32 of the model's size.

What is left to be timed is the exchange itself. The answers are made when the cohort is asked for,
before the first round, each with random numbers of its own, so that nothing can be sent from a
cache.
"""

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

SHAPE, ANSWERS = (5_000, 5_000), 3

app = ClientApp()
_answers: list[Array] = []


@app.query("cohort")
def cohort(message: Message, context: Context) -> Message:
    """How many patients there are."""
    del context
    chance = np.random.default_rng()
    while len(_answers) < ANSWERS:
        _answers.append(Array(chance.standard_normal(SHAPE, dtype=np.float32)))
    metrics = MetricRecord({"cohort-count": 100.0})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Random parameters; after the last of them, the first again."""
    del context
    _answers.append(_answers.pop(0))
    answer = RecordDict(
        {
            "arrays": ArrayRecord({"weights": _answers[-1]}),
            "metrics": MetricRecord({"num-examples": 100.0}),
        }
    )
    return Message(answer, reply_to=message)
