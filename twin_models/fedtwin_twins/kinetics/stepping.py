"""The recursion over events for few patients: each stretch is one matrix, and each step one call.

A state is a row: the modes, then the stages of every chain, then what runs in by every route. What
a stretch does to it is linear, and so is what changing parameters do to its modes:

    row after an event = row after the one before it @ stretch @ change + what the event brings

For many patients a matrix is mostly zeros that cost as much as numbers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedtwin_twins.kinetics.additions import Added
from fedtwin_twins.kinetics.passages import Passage, State


def steps(brought: Added, factors: Passage, turns: Sequence[Sequence[Tensor]]) -> State:
    """States after each event.

    Args:
        brought: by each event, each tensor (events, patients).
        factors: of each stretch between events, each tensor (events - 1, patients or 1).
        turns: how each new mode follows from the old ones at each event but the first, each
            tensor (events - 1, patients); empty if no parameter changes.

    Returns:
        each tensor (events, patients).
    """
    rows = _rows(brought, factors)
    matrices = _stretches(factors, brought.inflow is not None)
    if turns:
        matrices = matrices @ _changes(turns, matrices.shape[-1])
    patients = rows.shape[1]
    row, *later = rows[:, :, None].unbind(0)
    found = [row]
    for more, matrix in zip(later, matrices.expand(-1, patients, -1, -1).unbind(0), strict=True):
        row = torch.baddbmm(more, row, matrix)
        found.append(row)
    return _state(torch.stack(found)[:, :, 0], factors, brought.inflow is not None)


def _rows(brought: Added, factors: Passage) -> Tensor:
    """What each event brings, (events, patients, numbers)."""
    stages = [one for chain in brought.chains for one in chain]
    some = [*(brought.modes or ()), *stages, *(brought.inflow or ())]
    zero = torch.zeros_like(next(one for one in some if one is not None))
    modes = brought.modes or [zero] * len(factors.decay)
    filled = [zero if one is None else one for one in (*modes, *stages, *(brought.inflow or ()))]
    return torch.stack(_alike(filled), dim=-1)


def _stretches(factors: Passage, runs: bool) -> Tensor:
    """The matrix of each stretch, (events - 1, patients or 1, numbers, numbers)."""
    modes, lengths = len(factors.decay), [len(chain) for chain in factors.stays]
    size = modes + sum(lengths) + runs * len(lengths)
    zero = torch.zeros_like(factors.decay[0])
    table = [[zero] * size for _ in range(size)]
    for mode, decay in enumerate(factors.decay):
        table[mode][mode] = decay
    first = modes
    for route, stages in enumerate(lengths):
        own, inflow = range(first, first + stages), modes + sum(lengths) + route
        for place, row in enumerate(own):
            for mode, arrives in enumerate(factors.arrives[route]):
                table[row][mode] = arrives[stages - place - 1]
            for later, column in enumerate(own[place:]):
                table[row][column] = factors.stays[route][later]
        if runs:
            for mode, feed in enumerate(factors.feeds[route]):
                table[inflow][mode] = feed
            for column, fill in zip(own, factors.fills[route], strict=True):
                table[inflow][column] = fill
            table[inflow][inflow] = torch.ones_like(zero)
        first += stages
    each = _alike([one for row in table for one in row])
    return torch.stack(each, dim=-1).reshape(*each[0].shape, size, size)


def _alike(parts: Sequence[Tensor]) -> list[Tensor]:
    """All of the same shape, without a copy."""
    return list(torch.broadcast_tensors(*parts))  # type: ignore[no-untyped-call] # torch's


def _changes(turns: Sequence[Sequence[Tensor]], size: int) -> Tensor:
    """What changing parameters do to the modes alone, (events - 1, patients, numbers, numbers)."""
    modes = len(turns)
    # Each column is a new mode.
    turned = torch.stack([torch.stack(list(row), dim=-1) for row in turns], dim=-1)
    whole = torch.eye(size, dtype=turned.dtype, device=turned.device)
    whole = whole.expand(*turned.shape[:2], size, size).clone()
    whole[..., :modes, :modes] = turned
    return whole


def _state(rows: Tensor, factors: Passage, runs: bool) -> State:
    """Rows, (…, numbers), as a state."""
    parts = list(rows.unbind(-1))
    modes = tuple(parts[: len(factors.decay)])
    del parts[: len(modes)]
    chains = []
    for chain in factors.stays:
        chains.append(tuple(parts[: len(chain)]))
        del parts[: len(chain)]
    return State(modes, tuple(chains), tuple(parts) if runs else None)
