"""What a patient can pay for, and which patients do: plain names, without anything heavy."""

from typing import Final, Literal, get_args

ChargeKind = Literal["count", "train", "evaluate", "vote", "readiness"]
Population = Literal["training", "held_out", "everyone"]
KINDS: Final[tuple[ChargeKind, ...]] = get_args(ChargeKind)
"""All; `readiness` is a report on records, which a person shares and no plan asks for."""
