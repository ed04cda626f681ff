"""What each built-in model family predicts of a patient, in plain numpy: for sites and researchers.

Score z of a patient with columns x, and records r = 1 .. R (oldest first) of code c_r and numbers
n_r, each embedded as e_r = E[:, c_r] + N n_r + n_0 (w,):

- linear families: z = w . x + b; `discrete_hazard`: the log-odds of the event by the horizon.
- `network`: the layers on x, or, where there are records, the mean over the patient's records of
  the layers on [x, code as an indicator, n_r].
- `transformer`: blocks e += attention(norm(e)), e += down(gelu(up(norm(e)))) (Vaswani et al. 2017,
  arXiv 1706.03762; normalisation first: Xiong et al. 2020, arXiv 2002.04745; the time gap among the
  numbers takes the place of positions), z = head([mean over records of norm(e), x]).
- `recurrent`: the gated unit over e_1 .. e_R (Cho et al. 2014, arXiv 1406.1078, as torch has it),
  z = head([last state, x]).

A patient without records has one that is all zeros. Empty slots change nothing.

Prediction: 1 / (1 + exp(-z)) for yes or no and for hazards, z for `linear_regression` and
`linear_mixed_model` (in the plan's scaled unit; z of the latter: `population.estimate`), exp(z) for
`poisson_regression`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtwin_twins.risk import Array, Given, logistic, predict_score
from fedtwin_twins.survival import risk_log_odds

Parameters = Mapping[str, Given]
READ_AS_THEY_ARE = ("linear_regression", "linear_mixed_model")
READ_RECORDS = ("transformer", "recurrent")
AT_ONCE = 128
"""Patients with records computed together; bounds the memory, and changes nothing else."""
NORM_EPSILON = 1e-5
"""Added to the variance in a normalisation (Ba et al. 2016, arXiv 1607.06450)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordRows:
    """Patients' records; an empty slot is all zeros, and stands behind the filled ones.

    Attributes:
        codes: (patients, records), place in the vocabulary from 1, 0 where empty.
        numbers: (patients, records, 3): scaled value, whether there is one, time gap.
    """

    codes: NDArray[np.integer]
    numbers: Given

    def where(self, chosen: NDArray[Any] | slice) -> "RecordRows":
        """Some of the patients, by mark, place or slice."""
        return RecordRows(codes=self.codes[chosen], numbers=self.numbers[chosen])

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which slots count, (patients, records); the first always does."""
        filled = self.codes > 0
        filled[:, 0] = True
        return np.asarray(filled, np.bool_)


def scores_of(
    family: str,
    parameters: Parameters,
    matrix: Given,
    records: RecordRows | None = None,
    heads: int = 1,
) -> Array:
    """The score of each patient, shape (patients,).

    Args:
        family: a built-in one.
        parameters: the model's arrays by name.
        matrix: encoded columns, shape (patients, columns).
        records: for families that read them.
        heads: of a transformer.

    Raises:
        ValueError: names or shapes that are not the family's, or records missing.
    """
    if family == "discrete_hazard":
        return risk_log_odds(parameters, matrix)
    if records is None:
        if family in READ_RECORDS:
            raise ValueError(f"a {family} model predicts from records, and none were given")
        return predict_score(parameters, matrix)
    parts = [
        _of_records(
            family,
            parameters,
            matrix[start : start + AT_ONCE],
            records.where(slice(start, start + AT_ONCE)),
            heads,
        )
        for start in range(0, len(matrix), AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _of_records(
    family: str, parameters: Parameters, matrix: Given, records: RecordRows, heads: int
) -> Array:
    if family == "network":
        return _network(parameters, matrix, records)
    if family == "transformer":
        read = _transformer(parameters, records, heads)
    else:
        read = _recurrent(parameters, records)
    head = np.concatenate([read, matrix], axis=1) @ parameters["head.weight"][0]
    return np.asarray(head + parameters["head.bias"][0], np.float64)


def predicted(family: str, scores: Given) -> Array:
    """What the scores mean: a risk, a scaled value or a count, shape (patients,)."""
    if family in READ_AS_THEY_ARE:
        return np.asarray(scores, np.float64)
    if family == "poisson_regression":
        with np.errstate(over="ignore"):  # a count beyond all bounds is infinite
            return np.asarray(np.exp(scores), np.float64)
    return logistic(scores)


def _network(parameters: Parameters, matrix: Given, records: RecordRows) -> Array:
    """The mean over a patient's records of a network's log-odds."""
    patients, slots = records.codes.shape
    vocabulary = parameters["layer1.weight"].shape[1] - matrix.shape[1] - records.numbers.shape[2]
    indicator = records.codes[:, :, None] == np.arange(1, vocabulary + 1)
    columns = np.broadcast_to(matrix[:, None], (patients, slots, matrix.shape[1]))
    inputs = np.concatenate([columns, indicator, records.numbers], axis=2)
    scores = predict_score(parameters, inputs.reshape(patients * slots, -1))
    present = records.present
    summed = (scores.reshape(patients, slots) * present).sum(axis=1)
    return np.asarray(summed / present.sum(axis=1), np.float64)


def _embedded(parameters: Parameters, records: RecordRows) -> Array:
    embed = parameters["embed.weight"]
    table = np.concatenate([np.zeros((len(embed), 1)), embed], axis=1)
    numbers = records.numbers @ parameters["numbers.weight"].T + parameters["numbers.bias"]
    return np.asarray(table.T[records.codes] + numbers, np.float64)


def _transformer(parameters: Parameters, records: RecordRows, heads: int) -> Array:
    values, present = _embedded(parameters, records), records.present
    blocks = sum(name.endswith(".up.weight") for name in parameters)
    for block in range(1, blocks + 1):
        name = f"block{block}"
        inner = _normalised(parameters, f"{name}.norm1", values)
        values = values + _attention(parameters, name, inner, present, heads)
        inner = _linear(parameters, f"{name}.up", _normalised(parameters, f"{name}.norm2", values))
        values = values + _linear(parameters, f"{name}.down", _gelu(inner))
    values = _normalised(parameters, "norm", values) * present[:, :, None]
    return np.asarray(values.sum(axis=1) / present.sum(axis=1)[:, None], np.float64)


def _attention(
    parameters: Parameters, name: str, values: Array, present: NDArray[np.bool_], heads: int
) -> Array:
    patients, slots, width = values.shape
    mixed = _linear(parameters, f"{name}.attend_in", values)
    split = mixed.reshape(patients, slots, 3, heads, width // heads).transpose(2, 0, 3, 1, 4)
    query, key, value = split
    weights = query @ key.transpose(0, 1, 3, 2) / np.sqrt(width // heads)
    weights = np.where(present[:, None, None, :], weights, -np.inf)
    weights = np.exp(weights - weights.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    seen = (weights @ value).transpose(0, 2, 1, 3).reshape(patients, slots, width)
    return _linear(parameters, f"{name}.attend_out", seen)


def _recurrent(parameters: Parameters, records: RecordRows) -> Array:
    values, present = _embedded(parameters, records), records.present
    state = np.zeros((len(values), values.shape[2]))
    for slot in range(values.shape[1]):
        entering = _linear(parameters, "input", values[:, slot])
        kept = _linear(parameters, "state", state)
        reset, update, new = np.split(entering, 3, axis=1)
        reset_kept, update_kept, new_kept = np.split(kept, 3, axis=1)
        fresh = np.tanh(new + logistic(reset + reset_kept) * new_kept)
        gate = logistic(update + update_kept)
        moved = (1 - gate) * fresh + gate * state
        state = np.where(present[:, slot, None], moved, state)
    return state


def _linear(parameters: Parameters, name: str, values: Array) -> Array:
    weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
    return np.asarray(values @ weight.T + bias, np.float64)


def _normalised(parameters: Parameters, name: str, values: Array) -> Array:
    centred = values - values.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + NORM_EPSILON)
    scaled = centred / spread * parameters[f"{name}.weight"] + parameters[f"{name}.bias"]
    return np.asarray(scaled, np.float64)


def _gelu(values: Array) -> Array:
    """The tanh form of Hendrycks and Gimpel 2016 (arXiv 1606.08415, section 2)."""
    cubic = np.sqrt(2 / np.pi) * (values + 0.044715 * values**3)
    return np.asarray(0.5 * values * (1 + np.tanh(cubic)), np.float64)
