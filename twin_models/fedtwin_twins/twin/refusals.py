"""What a twin says instead of a number that would hide a guess.

    ValueError
    └── Refusal          one or more `Problem`s: nothing is computed
        ├── Unreachable  input is fine, but no schedule meets the goal
        └── Unfit        input is fine, but no model explains the patient well enough to advise

A `Problem` that still lets a number stand is a caution: it travels beside the result.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is wrong, or that a reader must know.

    Attributes:
        field: where, such as `doses[2].amount` or `haematocrit`.
        value: what was given, as it was given; empty where something is missing.
        unit: of the value and of what is allowed, in UCUM; empty where there is none.
        allowed: what would be accepted, in words or as a range.
        remedy: what to do about it.
    """

    field: str
    value: str = ""
    unit: str = ""
    allowed: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        given = f" is {self.value or 'missing'}{_unit(self.unit) if self.value else ''}"
        allowed = f"; expected {self.allowed}{_unit(self.unit)}" if self.allowed else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.field}{given}{allowed}{remedy}"


def _unit(unit: str) -> str:
    return f" {unit}" if unit not in {"", "1"} else ""


class Refusal(ValueError):  # noqa: N818 - an answer that clinicians read, by its own name
    """Input from which no number may be computed.

    Args:
        problems: at least one.
    """

    def __init__(self, *problems: Problem) -> None:
        if not problems:
            raise TypeError("a refusal needs a reason")
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class Unreachable(Refusal):
    """No allowed schedule meets the goal within the safety limits."""


class Unfit(Refusal):
    """No model's belief of this patient can carry advice."""


def refuse_if_any(problems: Iterable[Problem]) -> None:
    """All problems at once, so that nobody mends them one by one.

    Raises:
        Refusal: there is at least one.
    """
    found = tuple(problems)
    if found:
        raise Refusal(*found)
