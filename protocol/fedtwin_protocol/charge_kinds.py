"""What a patient can pay for, and which patients do: plain names, without anything heavy."""

from typing import Final, Literal, get_args

ChargeKind = Literal["count", "train", "evaluate", "vote"]
Population = Literal["training", "held_out", "everyone"]
KINDS: Final[tuple[ChargeKind, ...]] = get_args(ChargeKind)
