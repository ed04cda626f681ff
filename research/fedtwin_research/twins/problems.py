"""Everything that is wrong, gathered before anything is refused."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from fedtwin_twins.twin.refusals import Problem, Refusal

Asked = ParamSpec("Asked")
Found = TypeVar("Found")


@dataclass(slots=True)
class Problems:
    """What stops the answer, and what must stand beside it."""

    found: list[Problem] = field(default_factory=list)
    cautions: list[Problem] = field(default_factory=list)

    def attempt(
        self, work: Callable[Asked, Found], *args: Asked.args, **kwargs: Asked.kwargs
    ) -> Found | None:
        """What the work gives, or none with its problems kept."""
        try:
            return work(*args, **kwargs)
        except Refusal as refusal:
            self.add(refusal.problems)
            return None

    def under(
        self,
        field_name: str,
        work: Callable[Asked, Found],
        *args: Asked.args,
        **kwargs: Asked.kwargs,
    ) -> Found | None:
        """The same, with problems placed under a field of the file."""
        try:
            return work(*args, **kwargs)
        except Refusal as refusal:
            self.add(placed(one, field_name) for one in refusal.problems)
            return None

    def add(self, problems: Iterable[Problem]) -> None:
        """Keep each once."""
        known = set(self.found)
        self.found.extend(one for one in dict.fromkeys(problems) if one not in known)


def placed(problem: Problem, field_name: str) -> Problem:
    """The same problem under another name of the field."""
    return Problem(
        field=field_name,
        value=problem.value,
        unit=problem.unit,
        allowed=problem.allowed,
        remedy=problem.remedy,
    )
