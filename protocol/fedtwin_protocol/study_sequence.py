"""The part of a plan that says how a patient's records become a sequence, fixed before data."""

from collections import Counter
from typing import Annotated

from pydantic import Field, model_validator

from fedtwin_protocol.contract import Code, Part

RECORD_NUMBERS = 3
"""Numbers of a record beside its code: value, whether it has one, and the time before the index."""


class SequenceCode(Part):
    """One word of the vocabulary.

    Attributes:
        code: `<VOCABULARY>//<code>`.
        unit: UCUM unit of `plausible`, `center`, `scale`; values are converted to it.
        plausible: inclusive range outside which a record counts as without a value; none: values
            of this code are not looked at.
        center: subtracted, in `unit`.
        scale: divided by, in `unit`; what comes out is clipped to 5 either way.
    """

    code: Code
    unit: str = Field(default="1", max_length=40)
    plausible: tuple[float, float] | None = None
    center: float = 0.0
    scale: float = Field(default=1.0, gt=0)


class Sequence(Part):
    """A patient's records at or before the index date, oldest first.

    A record is its code's place in the vocabulary (from 1), and three numbers: the scaled value (0
    where there is none), 1 where there is one, and log(1 + days before the index / gap_days).

    Attributes:
        vocabulary: the codes that are read, in order; no other record is.
        most_records: the most recent so many are kept.
        window_days: how far back before the index date; none means no limit.
        gap_days: the unit of the time gap.
    """

    vocabulary: Annotated[tuple[SequenceCode, ...], Field(min_length=1, max_length=20_000)]
    most_records: int = Field(default=64, ge=1, le=4096)
    window_days: int | None = Field(default=None, ge=0, le=36525)
    gap_days: float = Field(default=30.0, gt=0)

    @model_validator(mode="after")
    def _codes_are_unique(self) -> "Sequence":
        codes = [word.code for word in self.vocabulary]
        twice = sorted(code for code, count in Counter(codes).items() if count > 1)
        if twice:
            raise ValueError(f"the vocabulary names a code twice: {', '.join(twice[:5])}")
        for word in self.vocabulary:
            if word.plausible is not None and not word.plausible[0] < word.plausible[1]:
                raise ValueError(f"{word.code}: plausible {word.plausible} is not low to high")
        return self
