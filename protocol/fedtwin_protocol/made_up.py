"""Made-up patients of a plan: rows and records of the right shape in which nobody is anybody.

For trying a plan, and for audits of a mechanism, where real patients are not needed and must not be
used. Values are drawn independently and encoded like real ones; they describe no population.
"""

from collections.abc import Sequence as Items
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtwin_protocol.contract import Feature, FeatureContract
from fedtwin_protocol.encoding import Floats, encode
from fedtwin_protocol.sequence_encoding import RawRecords, sequence_arrays
from fedtwin_protocol.study_sequence import Sequence

_FLAGGED = 0.3
_MISSING = 0.1
_YEAR = 365


def made_up_rows(contract: FeatureContract, patients: int, seed: int) -> Floats:
    """Encoded columns of made-up patients, (patients, columns), all within the clip ranges.

    Args:
        contract: the features.
        patients: how many.
        seed: of the draws.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    raw = {one.name: _values(one, patients, generator) for one in contract.features}
    return encode(contract, raw).matrix


def made_up_records(
    sequence: Sequence, lengths: NDArray[np.integer[Any]], seed: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Records of made-up patients as a model reads them, with codes and moments drawn evenly.

    Args:
        sequence: the plan's part.
        lengths: how many records each patient has, (patients,).
        seed: of the draws.

    Returns:
        as `sequence_arrays`.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    places = np.repeat(np.arange(len(lengths)), lengths)
    words = generator.integers(1, len(sequence.vocabulary) + 1, len(places))
    window = _YEAR if sequence.window_days is None else sequence.window_days
    days = window * generator.random(len(places))
    order = np.lexsort((-days, places))
    scaling = np.array([[word.center, word.scale] for word in sequence.vocabulary])[words - 1]
    values = scaling[:, 0] + scaling[:, 1] * generator.standard_normal(len(places))
    values[generator.random(len(places)) < _MISSING] = np.nan
    records = RawRecords(
        places=places[order], words=words[order], days=days[order], values=values[order]
    )
    return sequence_arrays(sequence, len(lengths), records)


def _values(
    feature: Feature, patients: int, generator: np.random.Generator
) -> Items[float | str | None] | Floats:
    """One value a patient, some of them missing where the contract has a rule for that."""
    absent = np.zeros(patients, np.bool_)
    if feature.missing != "exclude":
        absent = generator.random(patients) < _MISSING
    if feature.kind == "category":
        drawn = generator.integers(0, len(feature.categories), patients)
        return [
            None if gone else feature.categories[place]
            for place, gone in zip(drawn, absent, strict=True)
        ]
    if feature.yes_or_no:
        numbers = (generator.random(patients) < _FLAGGED).astype(np.float64)
    else:
        numbers = feature.center + feature.scale * generator.standard_normal(patients)
        if feature.counts:
            numbers = np.rint(np.maximum(numbers, 0.0))
        elif feature.plausible is not None:
            numbers = np.clip(numbers, *feature.plausible)
    return np.where(absent, np.nan, numbers)
