"""How many patients a trial needs, with a prognostic score and without.

The variance of the adjusted difference of means is sd^2 (1 - r^2) (1/n_treated + 1/n_control) with
the score's correlation r (Schuler et al. 2022, doi 10.1515/ijb-2021-0072), so that with k treated
for each control n_control = (1 + 1/k) sd^2 (1 - r^2) (z_{1-alpha/2} + z_power)^2 / difference^2.
Correlations seen in old data shrink in new data: plan with a smaller one and with a larger sd.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from typing import Final

from scipy.special import ndtri

_TINIEST: Final = 1e-100
"""Of what is divided by, or multiplied: beyond it numbers overflow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a trial should find.

    Attributes:
        difference: of means or risks, in the outcome's unit, not 0.
        sd: of the outcome within an arm, above 0.
        alpha: two-sided error of the first kind.
        power: chance of finding the difference.
        treated_per_control: allocation, such as 2 for two treated for each control.
        dropout: share without an outcome.
        sd_inflation: share by which sd is taken larger than stated.
        correlation_deflation: share by which every correlation is taken smaller.
    """

    difference: float
    sd: float
    alpha: float = 0.05
    power: float = 0.9
    treated_per_control: float = 1.0
    dropout: float = 0.0
    sd_inflation: float = 0.0
    correlation_deflation: float = 0.0

    def __post_init__(self) -> None:
        shares = {"alpha": self.alpha, "power": self.power}
        wrong = [name for name, value in shares.items() if not 0 < value < 1]
        parts = {"dropout": self.dropout, "correlation_deflation": self.correlation_deflation}
        wrong += [name for name, value in parts.items() if not 0 <= value < 1]
        if wrong:
            raise ValueError(
                f"expected {wrong[0]} between 0 and 1, found {getattr(self, wrong[0])}"
            )
        sizes = {"sd": self.sd, "treated_per_control": self.treated_per_control}
        if self.difference == 0 or min(sizes.values()) <= 0:
            raise ValueError("expected a difference other than 0, and sd and allocation above 0")
        if not (self.sd_inflation >= 0 and isfinite(self.sd_inflation)):
            raise ValueError("expected sd_inflation of at least 0")
        for name, value in {"difference": self.difference, **sizes}.items():
            if not _TINIEST < abs(value) < 1 / _TINIEST:
                raise ValueError(
                    f"expected {name} between {_TINIEST:g} and {1 / _TINIEST:g}, found {value:g}"
                )
        if self.power <= self.alpha:
            raise ValueError(
                f"expected power above alpha, {self.alpha:g}, found {self.power:g}: less is found "
                "without any patients"
            )

    def unit_variance(self, correlation: float) -> float:
        """Squared z times the residual variance over the squared difference.

        Raises:
            ValueError: the correlation is not between -1 and 1.
        """
        if not -1 < correlation < 1:
            raise ValueError(f"expected a correlation between -1 and 1, found {correlation}")
        kept = correlation * (1 - self.correlation_deflation)
        z = float(ndtri(1 - self.alpha / 2) + ndtri(self.power))
        sd = self.sd * (1 + self.sd_inflation)
        return (sd * z / self.difference) ** 2 * (1 - kept**2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How many patients; fractions as the formula gives them, whole patients beside.

    Attributes:
        correlation: of the score with the outcome, as stated.
        treated: in the arm that is compared.
        control: in the control arm.
        saving: share of all patients that the score saves, against none.
    """

    correlation: float
    treated: float
    control: float
    saving: float

    @property
    def total(self) -> int:
        """Whole patients, rounded up in each arm."""
        return ceil(self.treated - 1e-9) + ceil(self.control - 1e-9)


def patients_needed(question: Question, correlation: float = 0.0) -> Size:
    """How many patients are to be randomised in each arm."""
    return _size(question, correlation, saved_against=_control(question, 0.0))


def _control(question: Question, correlation: float) -> float:
    unit = question.unit_variance(correlation)
    return (1 + 1 / question.treated_per_control) * unit / (1 - question.dropout)


def _size(question: Question, correlation: float, saved_against: float) -> Size:
    control = _control(question, correlation)
    return Size(
        correlation=correlation,
        treated=control * question.treated_per_control,
        control=control,
        saving=1 - control / saved_against,
    )


def sample_size_panel(question: Question, correlations: Sequence[float]) -> list[Size]:
    """The sizes for several correlations."""
    return [patients_needed(question, correlation) for correlation in correlations]


def controls_needed(question: Question, treated: float, correlation: float) -> float:
    """How many controls are enough if the treated arm keeps its size.

    Raises:
        ValueError: so few treated patients are never enough.
    """
    left = 1 / question.unit_variance(correlation) - 1 / (treated * (1 - question.dropout))
    if left <= 0:
        raise ValueError(
            f"{treated:g} treated patients are too few for any number of controls; more than "
            f"{question.unit_variance(correlation) / (1 - question.dropout):.0f} are needed"
        )
    return 1 / left / (1 - question.dropout)
