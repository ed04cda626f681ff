"""What a benchmark says: one figure, beside what it is compared with and what it should reach."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        id: its name for `scripts/bench`.
        value: what was measured.
        unit: of the value.
        baseline: what it is compared with, in the same unit: a peer, a plain way, or the limit.
        goal: what should be reached.
        higher_is_better: whether the goal is reached from above.
    """

    id: str
    value: float
    unit: str
    baseline: float
    goal: float
    higher_is_better: bool = False

    @property
    def ratio(self) -> float:
        """The value as a multiple of the baseline."""
        return self.value / self.baseline

    @property
    def reached(self) -> bool:
        """Whether the goal is reached."""
        return self.value >= self.goal if self.higher_is_better else self.value <= self.goal

    def to_json(self) -> dict[str, object]:
        """As `--json` writes it."""
        plain = asdict(self)
        del plain["higher_is_better"]
        return {**plain, "ratio": round(self.ratio, 4), "reached": self.reached}


def graded(
    means: Mapping[str, Mapping[str, float]],
    asked: Iterable[tuple[str, str, str, float, float]],
) -> list[Figure]:
    """Figures of scores that are better the higher they are.

    Args:
        means: by group, then by score.
        asked: id, group, score, baseline and goal of each; those of groups without means are left
            out.
    """
    return [
        Figure(
            id=name,
            value=round(means[group][score], 4),
            unit="AUROC" if score == "auroc" else "accuracy",
            baseline=baseline,
            goal=goal,
            higher_is_better=True,
        )
        for name, group, score, baseline, goal in asked
        if group in means
    ]
