"""Parameters in force, and what they make of a stretch of time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from fedtwin_twins.kinetics.disposition import Modes
from fedtwin_twins.kinetics.passages import Chain, Passage, passage

Rows = Sequence[Sequence[Tensor]]
"""What is read off the modes: for each reading the weight of each mode."""


@dataclass(frozen=True, slots=True)
class Medium:
    """Parameters in force, each tensor (patients, 1) or (patients, events)."""

    modes: Modes
    chains: tuple[Chain, ...]

    def at(self, pick: Callable[[Tensor], Tensor]) -> "Medium":
        """Changed tensor by tensor."""
        modes = Modes(
            rates=tuple(map(pick, self.modes.rates)),
            shapes=tuple(tuple(map(pick, shape)) for shape in self.modes.shapes),
            roots=tuple(map(pick, self.modes.roots)),
        )
        chains = tuple(
            Chain(one.stages, None if one.rate is None else pick(one.rate)) for one in self.chains
        )
        return Medium(modes, chains)

    def over(self, elapsed: Tensor, *, inflow: bool) -> Passage:
        """Factors of a stretch of these hours."""
        return passage(self.modes.rates, self.modes.entry, self.chains, elapsed, inflow=inflow)

    def rows(self, *, amounts: bool) -> Rows:
        """How to read the concentration, or the amount in every compartment."""
        if not amounts:
            return (self.modes.entry,)
        return tuple(
            tuple(root * part for part in shape)
            for root, shape in zip(self.modes.roots, self.modes.shapes, strict=True)
        )
