"""A step as machine code, made when it is first needed.

What `torch.compile` returns looks at every tensor anew at each call, to see whether its code fits
them; beside a step of some microseconds that is the larger part. Where nobody derives by anything,
one look at the kind of the numbers is enough, because all of them have one size.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from fedtwin_twins.kinetics.systems import Advance, States

FUSED: dict[str, str | int | bool | Callable[..., Any]] = {
    "cpp.enable_floating_point_contract_flag": "fast",
    "max_fusion_size": 4096,
    "size_asserts": False,
    "alignment_asserts": False,
}
"""A product and a sum may be one instruction, which rounds once instead of twice; all steps of a
chain are one loop, which leaves nothing in memory in between; and sizes are looked at here."""
Flat = Callable[..., States]


class MachineCode:
    """An `Advance`, compiled.

    Args:
        plain: the same, operation by operation.
    """

    def __init__(self, plain: Advance) -> None:
        self._plain = plain
        self._watchful: Advance = torch.compile(plain)
        self._made: dict[Hashable, Flat | None] = {}

    def __call__(
        self,
        hours: Tensor,
        width: Tensor | float,
        states: States,
        values: Mapping[str, Tensor],
        inflow: tuple[Tensor, ...] | None,
    ) -> States:
        """As `Advance`; hours and width (1,), (patients,) or (steps, 1), all else (patients,)."""
        # The code takes neighbours in memory for neighbours, and does not look.
        given = tuple(one.contiguous() for one in (*states, *values.values(), *(inflow or ())))
        first = states[0]
        patients = first.shape[0]
        sizes = {one.shape[0] for one in given}
        derived = torch.is_grad_enabled() and any(one.requires_grad for one in given)
        if derived or sizes != {patients} or patients == 1 or not isinstance(width, Tensor):
            return self._watchful(hours, width, states, values, inflow)
        clocks = tuple(
            (*one.shape[:-1], one.shape[-1] == 1, one.shape[-1] == patients)
            for one in (hours, width)
        )
        kind = (first.dtype, first.device, clocks, len(states), *values)
        key = (*kind, -1 if inflow is None else len(inflow))
        if key not in self._made:
            self._made[key] = _made(self._plain, hours, width, states, values, inflow)
        made = self._made[key]
        if made is None:
            return self._watchful(hours, width, states, values, inflow)
        return made(hours, width, *given)


def _made(
    plain: Advance,
    hours: Tensor,
    width: Tensor,
    states: States,
    values: Mapping[str, Tensor],
    inflow: tuple[Tensor, ...] | None,
) -> Flat | None:
    """Code for any number of patients; none where this PyTorch cannot make it ahead."""
    names, count, runs = tuple(values), len(states), inflow is not None

    def flat(hours: Tensor, width: Tensor, *given: Tensor) -> States:
        last = count + len(names)
        known = dict(zip(names, given[count:last], strict=True))
        return plain(hours, width, given[:count], known, given[last:] if runs else None)

    patients = states[0].shape[0]
    given = (hours, width, *states, *values.values(), *(inflow or ()))
    hours, width, *example = [one.clone(memory_format=torch.contiguous_format) for one in given]
    for one in (hours, width, *example):
        if one.shape == (patients,):
            torch._dynamo.mark_dynamic(one, 0)
    whole: Any = torch.compile(flat, fullgraph=True, options=FUSED)
    if not hasattr(whole, "aot_compile"):
        return None
    with torch.no_grad():
        code = whole.aot_compile(((hours, width, *example), {}))
    code.disable_guard_check()
    made: Flat = code
    return made
