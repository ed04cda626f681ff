"""Where a measure turns amber and red: a file of the hospital's, read whenever somebody looks."""

from pathlib import Path
from typing import Final

import yaml
from pydantic import Field, ValidationError

from fedtwin_protocol.contract import Part, faults
from fedtwin_protocol.errors import ConfigurationError
from fedtwin_protocol.strict_yaml import load_strictly

FILE: Final = "readiness.yaml"
SMALLEST_FLOOR: Final = 5


class Thresholds(Part):
    """`readiness.yaml`; a threshold that is empty is not judged.

    Attributes:
        unknown_unit_percent: numbers in an unknown unit, of all numbers; red above.
        implausible_percent: implausible values, of all values; red above.
        coverage_percent: patients of the cohort with a value in the look-back; red below.
        unmapped_percent: events with a local code, of all coded events; red above.
        cohort: patients; red below.
        outcome_events: red below.
        ks: distance from the consortium's reference; red above.
        lag_days: from a feature's newest row to the newest of all, and from that to today; red
            above.
        amber_at: the part of the way to red at which a measure is amber.
        smallest_shown: a count below it is not shared; at least 5.
    """

    unknown_unit_percent: float | None = Field(default=5, ge=0, le=100)
    implausible_percent: float | None = Field(default=1, ge=0, le=100)
    coverage_percent: float | None = Field(default=50, ge=0, le=100)
    unmapped_percent: float | None = Field(default=10, ge=0, le=100)
    cohort: int | None = Field(default=100, ge=1)
    outcome_events: int | None = Field(default=20, ge=1)
    ks: float | None = Field(default=0.3, ge=0, le=1)
    lag_days: float | None = Field(default=7, ge=0)
    amber_at: float = Field(default=0.5, gt=0, le=1)
    smallest_shown: int = Field(default=10, ge=SMALLEST_FLOOR, le=1000)


def load_thresholds(path: Path) -> Thresholds:
    """Read the hospital's thresholds; the defaults where there is no file.

    Raises:
        ConfigurationError: not YAML, or a key is unknown, repeated or wrong (named).
    """
    try:
        value = load_strictly(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Thresholds()
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the thresholds {path}: {error}") from error
    try:
        return Thresholds.model_validate({} if value is None else value)
    except ValidationError as error:
        known = ", ".join(Thresholds.model_fields)
        raise ConfigurationError(f"{path} is wrong: {faults(error)}; keys are {known}") from error
