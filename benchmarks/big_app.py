"""A ClientApp whose training is nothing: it answers with random float32 of the model's shape.

What is left to be timed is the exchange itself. The noise is made once, then shifted, so that no
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
    model = message.content["arrays"]["weights"].numpy()
    if not _noise:
        _noise.append(np.random.default_rng().standard_normal(model.size, dtype=np.float32))
    _noise[0] = np.roll(_noise[0], 12_345)
    answer = RecordDict(
        {
            "arrays": ArrayRecord({"weights": Array(_noise[0].reshape(model.shape))}),
            "metrics": MetricRecord({"num-examples": 100.0}),
        }
    )
    return Message(answer, reply_to=message)
