"""From a feature's raw values to the model's columns: the same arithmetic at sites and researchers.

For a row with value v of a feature with centre c, scale s and clip range [lo, hi]:

- `number`, `age`: clip((v - c) / s, lo, hi); v outside `plausible` counts as missing.
- `flag`, `presence`, `sex`: the same with v in {0, 1}; any other value counts as missing.
- summary `count`: the same with v in {0, 1, 2, …}; any other value counts as missing. Where nothing
  was recorded v is 0, and not missing.
- `category`: one column for each category after the first, v = 1 where it is the row's.
- missing: rule `exclude` drops the row, `center` gives 0 in the feature's columns, `flag` gives
  that and 1 in the column that says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedtwin_protocol.contract import Feature, FeatureContract
from fedtwin_protocol.errors import RecordError

Floats: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]
RawColumns: TypeAlias = Mapping[str, Sequence[float | str | None] | Floats]


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """Rows ready for a model.

    Attributes:
        matrix: (rows, columns) float64, finite, in the order of the contract's columns; a row
            that is not kept holds 0 where it lacks a value.
        keep: (rows,) false where a feature under rule `exclude` is missing.
        missing: rows without a usable value, for each feature.
        implausible: those of them that had a value outside what the contract allows.
    """

    matrix: Floats
    keep: Mask
    missing: dict[str, int]
    implausible: dict[str, int]


def encode(contract: FeatureContract, raw: RawColumns) -> Encoded:
    """Encode raw values, each in its feature's unit.

    Args:
        contract: the features.
        raw: for every feature by name, one value a row; None and NaN mean missing. Numbers for
            every kind but `category`, whose values are the names of categories.

    Returns:
        The model's columns with what was missing.

    Raises:
        RecordError: a feature has no column, or columns differ in length.
    """
    rows = _row_count(contract, raw)
    blocks: list[Floats] = []
    keep = np.ones(rows, dtype=np.bool_)
    missing: dict[str, int] = {}
    implausible: dict[str, int] = {}
    for feature in contract.features:
        values, absent, refused = _values(feature, raw[feature.name])
        with np.errstate(over="ignore"):
            scaled = np.clip((values - feature.center) / feature.scale, *feature.clip)
        scaled[absent] = 0.0
        blocks.append(scaled)
        if feature.missing == "flag":
            blocks.append(absent.astype(np.float64)[:, None])
        elif feature.missing == "exclude":
            keep &= ~absent
        missing[feature.name] = int(absent.sum())
        implausible[feature.name] = int(refused.sum())
    return Encoded(
        matrix=np.concatenate(blocks, axis=1), keep=keep, missing=missing, implausible=implausible
    )


def spell_category(value: float | str) -> str:
    """The spelling by which a category's value is compared: 3.0 and '3' are one."""
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _row_count(contract: FeatureContract, raw: RawColumns) -> int:
    absent = [feature.name for feature in contract.features if feature.name not in raw]
    if absent:
        raise RecordError(
            f"expected a column for each feature; found none for {', '.join(absent)} "
            f"among {', '.join(sorted(raw)) or 'no columns'}"
        )
    lengths = {feature.name: len(raw[feature.name]) for feature in contract.features}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise RecordError(f"expected columns of one length, found rows in {listed}")
    return next(iter(lengths.values()))


def _values(
    feature: Feature, column: Sequence[float | str | None] | Floats
) -> tuple[Floats, Mask, Mask]:
    """Values (rows, columns) with 0 for what is absent, who is absent, who was refused."""
    if feature.kind == "category":
        return _categories(feature, column)
    numbers, absent, refused = _numbers(column)
    with np.errstate(invalid="ignore"):
        if feature.counts:
            outside = (numbers < 0) | (numbers != np.floor(numbers)) | np.isinf(numbers)
        elif feature.yes_or_no:
            outside = (numbers != 0) & (numbers != 1)
        elif feature.plausible is not None:
            low, high = feature.plausible
            outside = (numbers < low) | (numbers > high)
        else:
            outside = np.isinf(numbers)
    refused |= outside & ~absent
    absent |= refused
    return np.where(absent, 0.0, numbers)[:, None], absent, refused


def _numbers(column: Sequence[float | str | None] | Floats) -> tuple[Floats, Mask, Mask]:
    """Numbers with NaN for what is none, who is absent, who held text instead."""
    if isinstance(column, np.ndarray) and column.dtype.kind in "fiub":
        numbers = column.astype(np.float64)
        return numbers, np.isnan(numbers), np.zeros(len(numbers), dtype=np.bool_)
    text = np.array([isinstance(value, str) for value in column], dtype=np.bool_)
    numbers = np.array(
        [np.nan if value is None or isinstance(value, str) else value for value in column],
        dtype=np.float64,
    )
    return numbers, np.isnan(numbers) & ~text, text


def _categories(
    feature: Feature, column: Sequence[float | str | None] | Floats
) -> tuple[Floats, Mask, Mask]:
    places = {name: place for place, name in enumerate(feature.categories)}
    absent = np.array([value is None or value != value for value in column], dtype=np.bool_)  # noqa: PLR0124 - NaN alone differs from itself
    found = np.array(
        [
            -1 if gone else places.get(spell_category(value), -1)
            for value, gone in zip(column, absent, strict=True)
        ],
        dtype=np.int64,
    )
    refused = (found < 0) & ~absent
    values = (found[:, None] == np.arange(1, len(feature.categories))).astype(np.float64)
    return values, absent | refused, refused
