"""The covariance of random effects from what a paper prints, by the convention that it follows.

The same three numbers move a prior by 5 to 30 % when the convention is mistaken, so a card says
which one it is, and the matrix is checked: symmetric by construction, positive definite by test.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fedtwin_twins.pharmacology.card_parts import Block, OmegaConvention, Variability
from fedtwin_twins.twin.refusals import Problem

LARGEST_SD = 2.0
"""On the log scale; e^2 is seven-fold. Beyond it a percentage was written for a fraction."""

Matrix = NDArray[np.float64]


def variance(value: float, convention: OmegaConvention) -> float:
    """The variance of eta that a published number means."""
    if convention == "variance":
        return value
    if convention == "cv_lognormal":
        return math.log1p(value**2)
    return value**2


def covariance(
    variability: Variability, where: str, largest: Mapping[str, float] = MappingProxyType({})
) -> tuple[Matrix, list[Problem]]:
    """The block diagonal matrix of all effects, in the order of the blocks.

    Args:
        variability: of a card.
        where: what problems call it.
        largest: by parameter, the standard deviation of eta beyond which it is taken for a
            mistake; `LARGEST_SD` of those that are not named.

    Returns:
        (effects, effects), and everything that is wrong with it.
    """
    blocks, problems = [], list(_twice(variability, where))
    for place, block in enumerate(variability.blocks):
        found = _block(block, variability.convention, f"{where}.blocks[{place}]", largest)
        blocks.append(found[0])
        problems.extend(found[1])
    size = sum(len(block) for block in blocks)
    whole = np.zeros((size, size))
    start = 0
    for matrix in blocks:
        whole[start : start + len(matrix), start : start + len(matrix)] = matrix
        start += len(matrix)
    return whole, problems


def _twice(variability: Variability, where: str) -> list[Problem]:
    names = [name for block in variability.blocks for name in block.parameters]
    return [
        Problem(field=f"{where}.blocks", value=name, allowed="each parameter in one block")
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]


def _block(
    block: Block, convention: OmegaConvention, where: str, largest: Mapping[str, float]
) -> tuple[Matrix, list[Problem]]:
    size = len(block.parameters)
    nothing = np.zeros((size, size))
    shape = _shape_problem(block, convention, where)
    if shape is not None:
        return nothing, [shape]
    variances = [variance(value, convention) for value in block.diagonal]
    matrix = np.diag(np.array(variances))
    problems = [
        Problem(
            field=f"{where}.diagonal",
            value=f"{printed:g} for {name}",
            allowed=f"a standard deviation of eta up to {largest.get(name, LARGEST_SD):g}",
            remedy="write a coefficient of variation as a fraction, and check the convention",
        )
        for name, printed, value in zip(block.parameters, block.diagonal, variances, strict=True)
        if value > largest.get(name, LARGEST_SD) ** 2
    ]
    for row in range(1, size):
        for column in range(row):
            if block.correlations:
                scale = math.sqrt(variances[row] * variances[column])
                value = block.correlations[row - 1][column] * scale
            elif block.covariances:
                value = block.covariances[row - 1][column]
            else:
                value = 0.0
            matrix[row, column] = matrix[column, row] = value
    problems.extend(_not_positive(matrix, block, where))
    return matrix, problems


def _shape_problem(block: Block, convention: OmegaConvention, where: str) -> Problem | None:
    size = len(block.parameters)
    if size == 0 or len(block.diagonal) != size:
        return Problem(
            field=f"{where}.diagonal",
            value=f"{len(block.diagonal)} numbers",
            allowed=f"one for each of the {size} parameters, at least one",
        )
    if block.covariances and (block.correlations or convention != "variance"):
        return Problem(
            field=f"{where}.covariances",
            value=f"with the convention {convention}",
            allowed="only with the convention variance, and not beside correlations",
            remedy="write correlations instead",
        )
    rows = block.covariances or block.correlations
    if rows and [len(row) for row in rows] != list(range(1, size)):
        name = "covariances" if block.covariances else "correlations"
        return Problem(
            field=f"{where}.{name}",
            value=f"rows of {', '.join(str(len(row)) for row in rows)}",
            allowed=f"rows of 1 to {size - 1}: what stands below the diagonal",
        )
    return None


def _not_positive(matrix: Matrix, block: Block, where: str) -> list[Problem]:
    roots = np.sqrt(np.diag(matrix))
    correlations = matrix / np.outer(roots, roots)
    beyond = [
        Problem(
            field=f"{where}",
            value=f"a correlation of {correlations[row, column]:.3g} between "
            f"{block.parameters[row]} and {block.parameters[column]}",
            allowed="between -1 and 1",
            remedy="check the sign and whether the number is a covariance or a correlation",
        )
        for row in range(len(matrix))
        for column in range(row)
        if abs(correlations[row, column]) >= 1.0
    ]
    if beyond or float(np.linalg.eigvalsh(matrix)[0]) > 0.0:
        return beyond
    return [
        Problem(
            field=f"{where}",
            value=f"a matrix with an eigenvalue of {np.linalg.eigvalsh(matrix)[0]:.3g}",
            allowed="a positive definite matrix",
            remedy="check every covariance against the paper's table",
        )
    ]
