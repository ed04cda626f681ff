"""What an audit found: one figure beside its threshold, in words."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The outcome of one audit.

    Attributes:
        name: short and stable, such as `membership`.
        asks: what is tested, in a sentence.
        result: the figure.
        threshold: the figure must be on the right side of it.
        passed: whether it is.
        reading: what was found, in a sentence with the numbers that matter.
    """

    name: str
    asks: str
    result: float
    threshold: float
    passed: bool
    reading: str
