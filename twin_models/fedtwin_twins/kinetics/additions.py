"""What events bring, as columns that a recursion adds to the state, one after another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedtwin_twins.kinetics.events import Entered, at_spans, span_places
from fedtwin_twins.kinetics.medium import Medium
from fedtwin_twins.kinetics.passages import State, moved, steady


@dataclass(frozen=True, slots=True)
class Added:
    """What comes in at events, each tensor (patients, events); none: never."""

    modes: tuple[Tensor, ...] | None
    chains: tuple[tuple[Tensor | None, ...], ...]
    inflow: tuple[Tensor, ...] | None


def each(added: Added, change: Callable[[Tensor], Tensor]) -> Added:
    """Changed tensor by tensor."""
    return Added(
        None if added.modes is None else tuple(map(change, added.modes)),
        tuple(
            tuple(None if one is None else change(one) for one in stages) for stages in added.chains
        ),
        None if added.inflow is None else tuple(map(change, added.inflow)),
    )


def additions(
    events: Sequence[Entered], whole: Medium, starts: Tensor, *, runs: bool, lead: int
) -> Added:
    """Columns of what each event brings, behind `lead` columns that bring nothing."""
    shape = (events[0].time.shape[0], lead)
    nothing = torch.zeros(shape, dtype=starts.dtype, device=starts.device)
    pieces: list[State] = [_brought(one, whole, starts) for one in events]
    straight = any(chain.stages == 0 for chain in whole.chains)
    repeats = any(one.train is not None for one in events)

    def joined(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([nothing, *parts], 1)

    chains = tuple(
        tuple(
            joined([piece.chains[route][stage] for piece in pieces])
            if stage == 0 or repeats
            else None
            for stage in range(chain.stages)
        )
        for route, chain in enumerate(whole.chains)
    )
    modes = inflow = None
    if straight or repeats:
        modes = tuple(
            joined([piece.modes[mode] for piece in pieces])
            for mode in range(len(whole.modes.rates))
        )
    if runs:
        inflow = tuple(
            joined([piece.inflow[route] for piece in pieces if piece.inflow is not None])
            for route in range(len(whole.chains))
        )
    return Added(modes, chains, inflow)


def _brought(event: Entered, whole: Medium, starts: Tensor) -> State:
    """What a block of events brings, each tensor (patients, events)."""
    zero = torch.zeros_like(event.time)
    places = (
        span_places(starts.expand(zero.shape[0], -1), event.time) if starts.shape[1] > 1 else None
    )
    medium = whole if places is None else whole.at(lambda values: at_spans(values, places))
    if event.train is not None:
        return _trained(event, medium)
    amount = zero if event.amount is None else event.amount
    return _with(_dosed(event.route, amount, medium), event.route, event.inflow, zero)


def _with(state: State, route: int, inflow: Tensor | None, zero: Tensor) -> State:
    rates = [zero] * len(state.chains)
    if inflow is not None:
        rates[route] = inflow
    return State(state.modes, state.chains, tuple(rates))


def _dosed(route: int, amount: Tensor, medium: Medium) -> State:
    """An amount where its route begins."""
    zero = torch.zeros_like(amount)
    straight = medium.chains[route].stages == 0
    modes = tuple(part * amount if straight else zero for part in medium.modes.entry)
    chains = tuple(
        tuple(amount if number == route and stage == 0 else zero for stage in range(chain.stages))
        for number, chain in enumerate(medium.chains)
    )
    return State(modes, chains, None)


def _trained(event: Entered, medium: Medium) -> State:
    """What endless doses at an interval have left when the next one is due."""
    assert event.train is not None
    amount, duration, interval = event.train
    zero = torch.zeros_like(amount)
    there = interval > 0
    interval = torch.where(there, interval, 1.0)
    slow = there & (duration > 0)
    running = torch.where(slow, duration, 0.0)
    # What is at once, over the whole interval; what runs in, over its duration and then the rest.
    given = _with(
        _dosed(event.route, torch.where(slow, 0.0, amount), medium),
        event.route,
        torch.where(slow, amount, 0.0) / torch.where(slow, duration, 1.0),
        zero,
    )
    given = moved(given, medium.over(running, inflow=True))
    given = State(given.modes, given.chains, None)
    left = moved(given, medium.over(interval - running, inflow=False))
    kept = steady(left, medium.over(interval, inflow=False))
    return State(kept.modes, kept.chains, tuple(zero for _ in medium.chains))
