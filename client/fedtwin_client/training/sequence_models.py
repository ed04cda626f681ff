"""The families that read records, in torch: every linear map and normalisation can be tapped.

A tap keeps a map's inputs and outputs. One backward pass from the sum of the patients' losses to
the outputs, and to no weight, then gives what each patient's gradient is made of (`taps`). The
equations are those of `fedtwin_twins.families`, which predicts with the same parameters.
"""

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from fedtwin_client.training.taps import Taps
from fedtwin_twins.families import NORM_EPSILON

Tensor = torch.Tensor
Parameters = Mapping[str, Tensor]


class Batch:
    """Patients' data as tensors.

    Args:
        features: (patients, columns).
        codes: (patients, records) int64, 0 in empty slots.
        numbers: (patients, records, numbers).
    """

    def __init__(self, features: Tensor, codes: Tensor, numbers: Tensor) -> None:
        self.features, self.codes, self.numbers = features, codes, numbers
        self.present = codes > 0
        self.present[:, 0] = True
        self.full = bool(self.present.all())


Model = Callable[[Parameters, Batch, Taps], Tensor]
"""Losses' log-odds from parameters: (patients,), or (patients, records) for one of each record."""


def network(parameters: Parameters, batch: Batch, taps: Taps) -> Tensor:
    """Log-odds of every record, (patients, records)."""
    layers = len(parameters) // 2
    words = parameters["layer1.weight"].shape[1] - batch.features.shape[1] - batch.numbers.shape[2]
    columns = batch.features[:, None].expand(-1, batch.codes.shape[1], -1)
    places = torch.arange(1, words + 1, device=batch.codes.device)
    indicator = (batch.codes[:, :, None] == places).to(columns.dtype)
    values = torch.cat([columns, indicator, batch.numbers], dim=2)
    for layer in range(1, layers + 1):
        values = taps.linear(parameters, f"layer{layer}", values)
        if layer < layers:
            values = functional.relu(values)
    return values[:, :, 0]


def transformer(heads: int) -> Model:
    """The model of a transformer with so many heads; log-odds (patients,)."""

    def log_odds(parameters: Parameters, batch: Batch, taps: Taps) -> Tensor:
        values = _embedded(parameters, batch, taps)
        # Where no slot is empty nothing has to be hidden, which is faster.
        shown = None if batch.full else batch.present[:, None, None]
        blocks = sum(name.endswith(".up.weight") for name in parameters)
        for block in range(1, blocks + 1):
            name = f"block{block}"
            inner = taps.norm(parameters, f"{name}.norm1", values, NORM_EPSILON)
            mixed = taps.linear(parameters, f"{name}.attend_in", inner)
            seen = _attention(mixed, shown, heads)
            values = values + taps.linear(parameters, f"{name}.attend_out", seen)
            inner = taps.norm(parameters, f"{name}.norm2", values, NORM_EPSILON)
            inner = functional.gelu(
                taps.linear(parameters, f"{name}.up", inner), approximate="tanh"
            )
            values = values + taps.linear(parameters, f"{name}.down", inner)
        values = taps.norm(parameters, "norm", values, NORM_EPSILON)
        weight = batch.present.to(values.dtype)[:, :, None]
        return _head(parameters, batch, taps, (values * weight).sum(1) / weight.sum(1))

    return log_odds


def recurrent(parameters: Parameters, batch: Batch, taps: Taps) -> Tensor:
    """The model of a gated recurrent unit; log-odds (patients,)."""
    entering = taps.linear(parameters, "input", _embedded(parameters, batch, taps))
    state = torch.zeros_like(entering[:, 0, : entering.shape[2] // 3])
    for slot in range(batch.codes.shape[1]):
        kept = taps.linear(parameters, "state", state)
        reset, update, new = entering[:, slot].chunk(3, dim=1)
        reset_kept, update_kept, new_kept = kept.chunk(3, dim=1)
        fresh = torch.tanh(new + torch.sigmoid(reset + reset_kept) * new_kept)
        gate = torch.sigmoid(update + update_kept)
        moved = fresh + gate * (state - fresh)
        state = torch.where(batch.present[:, slot, None], moved, state)
    return _head(parameters, batch, taps, state)


def _embedded(parameters: Parameters, batch: Batch, taps: Taps) -> Tensor:
    words = taps.embedding(parameters, "embed", batch.codes)
    return words + taps.linear(parameters, "numbers", batch.numbers)


def _head(parameters: Parameters, batch: Batch, taps: Taps, read: Tensor) -> Tensor:
    return taps.linear(parameters, "head", torch.cat([read, batch.features], dim=1))[:, 0]


def _attention(mixed: Tensor, shown: Tensor | None, heads: int) -> Tensor:
    """Scaled dot products; `shown` (patients, 1, 1, records) says which records are seen."""
    patients, slots, triple = mixed.shape
    split = mixed.view(patients, slots, 3, heads, triple // 3 // heads).permute(2, 0, 3, 1, 4)
    query, key, value = split
    seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=shown)
    return seen.transpose(1, 2).reshape(patients, slots, triple // 3)
