"""A ClientApp whose training is nothing: it answers with random float32 of the model's shape.

What is left to be timed is the exchange itself. The noise is made once, then scaled, so that no
two answers are alike and nothing can be sent from a cache.
"""

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
_noise: list[np.ndarray] = []


@app.query("cohort")
def cohort(message: Message, context: Context) -> Message:
    """How many patients there are."""
    del context
    metrics = MetricRecord({"cohort-count": 100.0})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Random parameters."""
    del context
    shape = message.content["arrays"]["weights"].shape
    if not _noise:
        _noise.append(np.random.default_rng().standard_normal(shape, dtype=np.float32))
    _noise[0] *= np.float32(-0.999)
    answer = RecordDict(
        {
            "arrays": ArrayRecord({"weights": Array(_noise[0])}),
            "metrics": MetricRecord({"num-examples": 100.0}),
        }
    )
    return Message(answer, reply_to=message)
