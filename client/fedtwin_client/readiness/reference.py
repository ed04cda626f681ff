"""The consortium's reference for a study's values: 19 quantiles for each feature, from a file.

A value's distribution is compared by the Kolmogorov-Smirnov distance at the reference's quantiles.
Where many values are equal, the share of values below a quantile and the share up to it differ; the
distance is from the nearer of the two, and 0 if the quantile's level lies between them, so that a
hospital whose values are the reference itself has distance 0. What happens between two quantiles is
not seen: the distance may be larger by up to 0.05.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from fedtwin_client.records.codes.units import normal_unit
from fedtwin_protocol.contract import Feature
from fedtwin_protocol.errors import ConfigurationError

LEVELS: Final = tuple(level / 20 for level in range(1, 20))
"""5 % to 95 %."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """Quantiles to compare with.

    Attributes:
        name: the file's.
        quantiles: for some features, the 19 quantiles in the feature's unit, never falling.
    """

    name: str
    quantiles: Mapping[str, tuple[float, ...]]


def read_reference(path: Path, features: Sequence[Feature]) -> Reference:
    """Read a reference: `{"features": {"chol": {"unit": "mg/dL", "quantiles": [...]}}}`.

    Features of other studies are passed over.

    Raises:
        ConfigurationError: the file cannot be read, or quantiles are not 19 numbers that never
            fall, in the feature's unit (the feature is named).
    """
    try:
        value = json.loads(path.read_bytes())
        parts = value["features"]
        found = {
            feature.name: _quantiles(parts[feature.name], feature, path)
            for feature in features
            if feature.kind == "number" and feature.name in parts
        }
    except OSError as error:
        raise ConfigurationError(f"cannot read the reference {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigurationError(
            f"{path} is no reference: expected JSON with 'features', and for each of them 'unit' "
            "and 'quantiles' (19 numbers)"
        ) from error
    if not found:
        raise ConfigurationError(f"{path} has no quantiles for any feature of this study")
    return Reference(name=path.name, quantiles=found)


def _quantiles(part: Any, feature: Feature, path: Path) -> tuple[float, ...]:
    unit, numbers = str(part["unit"]), part["quantiles"]
    if (normal_unit(unit) or unit) != (normal_unit(feature.unit) or feature.unit):
        raise ConfigurationError(
            f"{path}: '{feature.name}' is in '{unit}', the study asks for '{feature.unit}': convert"
            " its quantiles"
        )
    good = isinstance(numbers, list) and len(numbers) == len(LEVELS)
    good = good and all(type(number) in {int, float} for number in numbers)
    if not good or not all(math.isfinite(number) for number in numbers):
        raise ConfigurationError(f"{path}: '{feature.name}' needs {len(LEVELS)} quantiles, numbers")
    if any(one > other for one, other in pairwise(numbers)):
        raise ConfigurationError(f"{path}: the quantiles of '{feature.name}' must not fall")
    return tuple(float(number) for number in numbers)


def distance(below: Sequence[int], up_to: Sequence[int], values: int) -> float:
    """The distance from a reference.

    Args:
        below: how many values lie below each quantile.
        up_to: how many lie at or below it.
        values: how many there are, at least 1.
    """
    return max(
        max(low / values - level, level - high / values, 0.0)
        for low, high, level in zip(below, up_to, LEVELS, strict=True)
    )
