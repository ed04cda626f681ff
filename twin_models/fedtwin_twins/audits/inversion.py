"""Gradient inversion: a patient's record read off one update.

The gradient of a linear layer for one record is W' = d x^T and b' = d (outputs d, inputs x), so
every row of W' is a multiple of the record and x = W'^T b' / |b'|^2 exactly (Phong et al. 2018,
doi 10.1109/TIFS.2017.2787987, section 3). The linear sum of logistic regression is the case of one
output. An attacker who knows everybody else subtracts them first, so one record is the worst case.
"""

from typing import Final

import numpy as np

from fedtwin_twins.audits.finding import Finding
from fedtwin_twins.audits.tails import Floats

RECOGNISABLE: Final = 0.3
"""Mean cosine above which records count as recognisable."""


def read_record(weight_gradient: Floats, bias_gradient: Floats) -> Floats:
    """The record that explains a first layer's gradient best.

    Args:
        weight_gradient: (..., outputs, inputs).
        bias_gradient: (..., outputs).

    Returns:
        (..., inputs)
    """
    length = (bias_gradient**2).sum(axis=-1, keepdims=True)
    found = np.einsum("...oi,...o->...i", weight_gradient, bias_gradient)
    return np.asarray(found / np.maximum(length, 1e-300), np.float64)


def cosines(found: Floats, records: Floats) -> Floats:
    """Cosine of the angle between what was read and the record, (...)."""
    lengths = np.linalg.norm(found, axis=-1) * np.linalg.norm(records, axis=-1)
    return np.asarray((found * records).sum(axis=-1) / np.maximum(lengths, 1e-300), np.float64)


def inversion_finding(open_cosines: Floats, noised_cosines: Floats, name: str) -> Finding:
    """Inversion as a finding: passed where noised updates do not show the records.

    Args:
        open_cosines: of updates without noise; they show that the attack works.
        noised_cosines: of updates as they are sent.
        name: of the finding.
    """
    mean, without = float(np.mean(noised_cosines)), float(np.mean(open_cosines))
    return Finding(
        name=name,
        asks="an attacker who knows all other patients reads a patient's record off one update",
        result=mean,
        threshold=RECOGNISABLE,
        passed=mean < RECOGNISABLE,
        reading=(
            f"mean cosine with the record {mean:.3f} over {noised_cosines.size} updates as sent; "
            f"without noise {without:.3f}"
        ),
    )
