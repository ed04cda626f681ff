"""Responses that a concentration drives: turnover, effect compartments and transit chains.

A stage is one amount X that is produced and lost, at rates that a concentration or the stage
before it may change:

    dX/dt = production(C, previous) - loss(C, previous) X

- indirect response (Dayneka, Garg and Jusko 1993, J Pharmacokinet Biopharm 21:457, models I to
  IV): production = kin (1 +- f(C)), loss = kout, or production = kin, loss = kout (1 +- f(C));
- effect compartment (Sheiner et al. 1979, Clin Pharmacol Ther 25:358): production = ke0 C,
  loss = ke0;
- transit chain (Sun and Jusko 1998, J Pharm Sci 87:732): production = k previous, loss = k.

What a stage does to earlier ones (a feedback) is not of this form: `fixed_step` is for that.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Values = Mapping[str, Tensor]
Signal = Callable[["Moment"], Tensor]


@dataclass(frozen=True, slots=True)
class Moment:
    """What a stage is told, each tensor broadcasting to (patients, ...).

    Attributes:
        event: h from the patient's origin, when something last came in or changed.
        elapsed: h since then.
        concentration: in the central compartment, 0 or more.
        previous: the stage before; of the first one, the concentration.
        values: the stage's own parameters in force.
    """

    event: Tensor
    elapsed: Tensor
    concentration: Tensor
    previous: Tensor
    values: Values

    @property
    def hours(self) -> Tensor:
        """From the patient's origin."""
        return self.event + self.elapsed


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One amount.

    Attributes:
        values: its parameters by name, each (patients, spans) or (patients, 1).
        start: the amount at first, from the values in force then.
        production: amount/h.
        loss: fraction/h.
        fastest: a rate, 1/h, that `loss` never exceeds; it chooses the step.
        constant_loss: `loss` looks at the values alone.
        bend: a concentration about which what it does bends, such as EC50; none: nowhere. Where
            doses lead far beyond it, panels follow the passage through it.
    """

    values: Values
    start: Callable[[Values], Tensor]
    production: Signal
    loss: Signal
    fastest: Callable[[Values], Tensor]
    constant_loss: bool = True
    bend: Callable[[Values], Tensor] | None = None


def sigmoid(
    concentration: Tensor, maximum: Tensor, half: Tensor, hill: Tensor | None = None
) -> Tensor:
    """Emax C^h / (EC50^h + C^h), 0 at C = 0 for every h > 0; Imax where it inhibits.

    Args:
        concentration: 0 or more.
        maximum: of the effect.
        half: EC50, concentration of half the effect.
        hill: h; none: 1.
    """
    if hill is None:
        return maximum * (concentration / (half + concentration))
    # Where C = 0 a power below 1 has no finite slope; what follows from it does not depend on C.
    ratio = (concentration / half).clamp(min=torch.finfo(concentration.dtype).tiny)
    power = ratio**hill
    return torch.where(concentration > 0, maximum * (power / (1 + power)), 0.0)


def log_linear(concentration: Tensor, slope: Tensor, scale: Tensor) -> Tensor:
    """Slope log(1 + C/scale): linear below the scale, logarithmic above it."""
    return slope * (concentration / scale).log1p()


def indirect_response(
    *,
    production: Tensor,
    loss: Tensor,
    effect: Callable[[Moment], Tensor],
    acts_on: Literal["production", "loss"],
    inhibits: bool,
    values: Values | None = None,
    largest_effect: Tensor | None = None,
) -> Stage:
    """Turnover whose production or loss is inhibited, x (1 - f), or stimulated, x (1 + f).

    Args:
        production: kin, unit/h.
        loss: kout, 1/h; the response starts at kin/kout.
        effect: f of a moment, 0 where there is no drug.
        acts_on: which of the two.
        inhibits: or else it stimulates.
        values: parameters of the effect by name, handed to it in the moment.
        largest_effect: a bound of f, needed where loss is stimulated.
    """
    sign = -1.0 if inhibits else 1.0
    stimulated_loss = acts_on == "loss" and not inhibits
    if stimulated_loss and largest_effect is None:
        raise ValueError("expected the largest effect of a stimulated loss, got none")
    known = {**(values or {}), "production": production, "loss": loss}
    if stimulated_loss and largest_effect is not None:
        known["fastest"] = loss * (1 + largest_effect)

    def produced(moment: Moment) -> Tensor:
        made = moment.values["production"]
        return made.addcmul(sign * made, effect(moment)) if acts_on == "production" else made

    def lost(moment: Moment) -> Tensor:
        rate = moment.values["loss"]
        return rate.addcmul(sign * rate, effect(moment)) if acts_on == "loss" else rate

    return Stage(
        values=known,
        start=lambda given: given["production"] / given["loss"],
        production=produced,
        loss=lost,
        fastest=lambda given: given["fastest" if stimulated_loss else "loss"],
        constant_loss=acts_on == "production",
    )


def effect_compartment(rate: Tensor) -> Stage:
    """A place that follows the concentration at `rate`, ke0, 1/h; at first empty."""
    return Stage(
        values={"rate": rate},
        start=lambda given: torch.zeros_like(given["rate"]),
        production=lambda moment: moment.values["rate"] * moment.concentration,
        loss=lambda moment: moment.values["rate"],
        fastest=lambda given: given["rate"],
    )


def transit(
    rate: Tensor,
    stages: int,
    signal: Signal | None = None,
    *,
    values: Values | None = None,
    start: Tensor | None = None,
) -> tuple[Stage, ...]:
    """A chain of stages that each follow the one before at the same rate.

    Args:
        rate: of each stage, 1/h: stages/(mean transit time).
        stages: how many.
        signal: what the first one follows; none: the stage before it.
        values: parameters of the signal by name, handed to it in the moment.
        start: the amount of every stage at first; none: 0.
    """
    nothing = torch.zeros_like(rate) if start is None else start

    def stage(first: bool) -> Stage:
        source = signal if first and signal is not None else _previous
        return Stage(
            values={**(values or {}), "rate": rate, "start": nothing},
            start=lambda given: given["start"],
            production=lambda moment: moment.values["rate"] * source(moment),
            loss=lambda moment: moment.values["rate"],
            fastest=lambda given: given["rate"],
        )

    return tuple(stage(place == 0) for place in range(stages))


def _previous(moment: Moment) -> Tensor:
    return moment.previous
