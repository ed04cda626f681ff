"""Made-up patients of a feature contract: rows of the right shape in which nobody is anybody.

For trying a plan, and for audits of a mechanism, where real patients are not needed and must not be
used. Values are drawn independently and encoded like real ones; they describe no population.
"""

from collections.abc import Sequence

import numpy as np

from fedtwin_protocol.contract import Feature, FeatureContract
from fedtwin_protocol.encoding import Floats, encode

_FLAGGED = 0.3
_MISSING = 0.1


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


def _values(
    feature: Feature, patients: int, generator: np.random.Generator
) -> Sequence[float | str | None] | Floats:
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
    if feature.kind in {"flag", "presence", "sex"}:
        numbers = (generator.random(patients) < _FLAGGED).astype(np.float64)
    else:
        numbers = feature.center + feature.scale * generator.standard_normal(patients)
        if feature.plausible is not None:
            numbers = np.clip(numbers, *feature.plausible)
    return np.where(absent, np.nan, numbers)
