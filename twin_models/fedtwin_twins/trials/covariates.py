"""Covariates of virtual patients: named marginals tied by a Gaussian copula, or rows handed in.

A normal number is drawn for each covariate with the correlations of the plan, turned into a uniform
one, and that into the covariate by the inverse of its distribution, cut to the plausible range. The
cut is exact: no draw is thrown away, so that a patient's numbers do not depend on others.
(Nelsen 2006, An Introduction to Copulas, 2.3.) Correlations are those of the normal numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field, model_validator
from scipy.special import ndtr, ndtri

from fedtwin_twins.trials.ancestry import Ancestry
from fedtwin_twins.trials.parts import Part
from fedtwin_twins.trials.streams import Floats, Streams

_PURPOSE = "covariates"
LEAST: Final = 0.01
"""The share of a distribution that its range must hold."""


class Moments(Part):
    """Mean and standard deviation before the cut, in the covariate's unit."""

    mean: float
    sd: Annotated[float, Field(gt=0)]


class Covariate(Part):
    """The marginal distribution of one covariate."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")]
    unit: Annotated[str, Field(min_length=1, description="UCUM; '1' for yes or no")]
    distribution: Literal["normal", "lognormal", "uniform", "yes_no", "fixed"]
    mean: Annotated[
        float | None, Field(description="before the cut; for yes_no the share of ones")
    ] = None
    sd: Annotated[float | None, Field(gt=0, description="before the cut")] = None
    lowest: Annotated[float | None, Field(description="plausible range; needed unless yes_no")] = (
        None
    )
    highest: float | None = None
    by_ancestry: Annotated[
        dict[Ancestry, Moments],
        Field(default_factory=dict, description="other mean and sd in some ancestries"),
    ]
    source: Annotated[str, Field(min_length=3, description="where it is from, or 'assumption: …'")]

    @model_validator(mode="after")
    def _whole(self) -> "Covariate":
        wanted = {
            "normal": ("mean", "sd", "lowest", "highest"),
            "lognormal": ("mean", "sd", "lowest", "highest"),
            "uniform": ("lowest", "highest"),
            "yes_no": ("mean",),
            "fixed": ("mean",),
        }[self.distribution]
        absent = [name for name in wanted if getattr(self, name) is None]
        if absent:
            raise ValueError(f"{self.name}: {self.distribution} needs {', '.join(absent)}")
        if self.distribution == "yes_no" and not 0 <= float(self.mean or 0) <= 1:
            raise ValueError(f"{self.name}: expected a share between 0 and 1 as mean")
        if self.lowest is not None and self.highest is not None and self.lowest >= self.highest:
            raise ValueError(f"{self.name}: expected lowest below highest")
        means = [self._mean(), *(one.mean for one in self.by_ancestry.values())]
        if self.distribution == "lognormal" and (float(self.lowest or 0) < 0 or min(means) <= 0):
            raise ValueError(f"{self.name}: lognormal numbers are above 0")
        self._check_cut()
        if self.by_ancestry and self.distribution not in {"normal", "lognormal"}:
            raise ValueError(f"{self.name}: by_ancestry is for normal and lognormal covariates")
        return self

    def _check_cut(self) -> None:
        """The range must hold some of what is cut to it: else it alone decides."""
        if self.distribution not in {"normal", "lognormal"}:
            return
        whole = Moments(mean=self._mean(), sd=float(self.sd or 1))
        for where, one in (("", whole), *((f" in {name}", of) for name, of in self._others())):
            start, end = self._shares(np.array([one.mean]), np.array([one.sd]))
            if float(end[0] - start[0]) < LEAST:
                raise ValueError(
                    f"{self.name}: mean {one.mean:g} and sd {one.sd:g}{where}, expected at least "
                    f"{100 * LEAST:g} in 100 from {self.lowest:g} to {self.highest:g}"
                )

    def _others(self) -> Iterable[tuple[str, Moments]]:
        return self.by_ancestry.items()

    def _mean(self) -> float:
        return float(self.mean or 0)

    def values(self, uniform: Floats, ancestry: Sequence[str]) -> Floats:
        """From uniform numbers to the covariate, (patients,)."""
        if self.distribution == "fixed":
            return np.full(len(uniform), self._mean())
        if self.distribution == "yes_no":
            return (uniform > 1 - self._mean()).astype(np.float64)
        if self.distribution == "uniform":
            return float(self.lowest or 0) + uniform * self._width()
        mean, sd = np.full(len(uniform), self._mean()), np.full(len(uniform), float(self.sd or 1))
        each = np.array(ancestry)
        for name, other in self.by_ancestry.items():
            mean[each == name], sd[each == name] = other.mean, other.sd
        return self._cut(uniform, mean, sd)

    def _width(self) -> float:
        return float(self.highest or 0) - float(self.lowest or 0)

    def _cut(self, uniform: Floats, mean: Floats, sd: Floats) -> Floats:
        low, high = float(self.lowest or 0), float(self.highest or 0)
        start, end = self._shares(mean, sd)
        normal = ndtri(start + uniform * (end - start))
        if self.distribution == "normal":
            found = mean + sd * normal
        else:
            centre, scale = _of_logarithm(mean, sd)
            found = np.exp(centre + scale * normal)
        return np.asarray(np.clip(found, low, high), dtype=np.float64)

    def _shares(self, mean: Floats, sd: Floats) -> tuple[Floats, Floats]:
        """The share of numbers below the range, and below its upper end."""
        low, high = float(self.lowest or 0), float(self.highest or 0)
        if self.distribution == "normal":
            return ndtr((low - mean) / sd), ndtr((high - mean) / sd)
        centre, scale = _of_logarithm(mean, sd)
        start = ndtr((log(low) - centre) / scale) if low > 0 else np.zeros_like(mean)
        return start, ndtr((log(high) - centre) / scale)


def _of_logarithm(mean: Floats, sd: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of the logarithm of lognormal numbers."""
    scale = np.sqrt(np.log1p((sd / mean) ** 2))
    return np.log(mean) - scale**2 / 2, scale


class Correlation(Part):
    """Of the normal numbers behind two covariates."""

    first: str
    second: str
    value: Annotated[float, Field(gt=-1, lt=1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Covariates of real patients, to draw whole rows from, with replacement.

    Attributes:
        values: by covariate, (rows,).
        units: UCUM, by covariate.
    """

    values: Mapping[str, Floats]
    units: Mapping[str, str]

    def __post_init__(self) -> None:
        lengths = {len(column) for column in self.values.values()}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError("expected columns of one length with at least one row")
        if set(self.values) != set(self.units):
            raise ValueError("expected a unit for each column")
        for name, column in self.values.items():
            if not np.isfinite(column).all():
                row = int(np.flatnonzero(~np.isfinite(column))[0])
                raise ValueError(f"{name} has no finite value in row {row + 1}")


def correlation_root(
    covariates: Sequence[Covariate], correlations: Sequence[Correlation]
) -> Floats:
    """The lower triangle that makes independent normal numbers correlated.

    Raises:
        ValueError: a pair names no covariate, or the correlations contradict one another.
    """
    names = [covariate.name for covariate in covariates]
    matrix = np.eye(len(names))
    for pair in correlations:
        unknown = [one for one in (pair.first, pair.second) if one not in names]
        if unknown or pair.first == pair.second:
            raise ValueError(f"correlations: expected two covariates, found {unknown or pair}")
        first, second = names.index(pair.first), names.index(pair.second)
        matrix[first, second] = matrix[second, first] = pair.value
    if names and np.linalg.eigvalsh(matrix)[0] <= 1e-9:
        raise ValueError("correlations contradict one another: their matrix must be positive")
    return np.asarray(np.linalg.cholesky(matrix), dtype=np.float64)


def draw_covariates(
    covariates: Sequence[Covariate],
    correlations: Sequence[Correlation],
    ancestry: Sequence[str],
    streams: Streams,
) -> dict[str, Floats]:
    """Draw covariates, by name, (patients,) each."""
    root = correlation_root(covariates, correlations)
    free = [streams.normals(_PURPOSE, place) for place in range(len(covariates))]
    found = {}
    for place, covariate in enumerate(covariates):
        # Summed by hand: a matrix product may round by the number of patients.
        tied = np.zeros(streams.patients)
        for other in range(place + 1):
            tied = tied + root[place, other] * free[other]
        found[covariate.name] = covariate.values(ndtr(tied), ancestry)
    return found


def draw_rows(rows: Rows, streams: Streams) -> dict[str, Floats]:
    """Take whole rows at random, with replacement: what belongs together stays together."""
    size = len(next(iter(rows.values.values())))
    place = np.minimum((streams.uniforms(_PURPOSE) * size).astype(np.int64), size - 1)
    return {name: column[place] for name, column in rows.values.items()}
