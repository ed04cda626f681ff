"""What a noised table of held-out patients says about a model.

The table counts patients by bin of predicted risk (equal widths on 0 to 1) and outcome (no, yes).
A site adds Gaussian noise to each cell; one patient is in one cell, so the sensitivity is 1. Tables
of sites add up, and so do the variances of their noise.

Rules, with n_b and e_b the noised counts without and with the outcome in bin b, N and E their sums:

1. Sums are taken of the cells as they are, negative ones too: noise is as often negative as
   positive, so sums of raw cells are unbiased, while sums of cells clipped at zero gain about
   0.4 sd of noise for every empty cell. Only a table to look at is clipped.
2. A rate is reported only if its denominator is a count of at least one; otherwise it is NaN.
   What noise pushes beyond the possible range is put back to the range's end.
3. Within a bin, patients count as tied in the AUROC, and their predicted risk as the bin's middle.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtwin_protocol.errors import WireError

Table = NDArray[np.floating[Any]]


def check_table(table: Table) -> NDArray[np.float64]:
    """Hold a table against its form.

    Returns:
        the table in float64, shape (bins, 2).

    Raises:
        WireError: another shape, or a cell that is not finite.
    """
    cells = np.asarray(table, np.float64)
    if cells.ndim != 2 or cells.shape[0] < 2 or cells.shape[1] != 2:
        raise WireError(
            "expected a hold-out table of shape (bins, 2) with at least 2 bins, got "
            f"{np.shape(table)}"
        )
    if not np.isfinite(cells).all():
        raise WireError("the hold-out table holds a cell that is not a finite number")
    return cells


def make_table(probabilities: Table, labels: Table, bins: int) -> NDArray[np.float64]:
    """The exact table of some patients; it needs noise before it may leave a site.

    Args:
        probabilities: predicted risks, shape (patients,); a bin holds its lower edge, the last one
            both. A risk that is not a number counts in the first bin, so that every patient is in
            one cell.
        labels: 0 or 1, shape (patients,).
        bins: number of bins.

    Returns:
        counts, shape (bins, 2).

    Raises:
        WireError: shapes differ, or there are fewer than 2 bins.
    """
    if probabilities.ndim != 1 or probabilities.shape != labels.shape or bins < 2:
        raise WireError(
            f"expected risks and outcomes of as many patients and at least 2 bins, got shapes "
            f"{probabilities.shape} and {labels.shape} and {bins} bins"
        )
    risks = np.clip(np.nan_to_num(probabilities, nan=0.0), 0.0, 1.0)
    places = np.minimum(np.floor(risks * bins), bins - 1).astype(np.int64)
    cells = np.bincount(2 * places + (labels > 0.5), minlength=2 * bins)
    return cells.reshape(bins, 2).astype(np.float64)


def bin_middles(bins: int) -> NDArray[np.float64]:
    """The middle of each bin of predicted risk, shape (bins,)."""
    return np.asarray((np.arange(bins) + 0.5) / bins, np.float64)


def hold_out_metrics(table: Table) -> dict[str, float]:
    """The figures of quality that a table supports.

    Args:
        table: noised counts, shape (bins, 2).

    Returns:
        `patients`, `outcomes` (noised counts); `auroc`; `accuracy` of calling a risk of a half or
        more a yes; `expected_over_observed` number of outcomes; `brier` score. NaN where too few
        patients carry a figure.

    Raises:
        WireError: the table has another form.
    """
    cells = check_table(table)
    without, having = cells[:, 0], cells[:, 1]
    middles = bin_middles(len(cells))
    patients, outcomes = float(cells.sum()), float(having.sum())
    squares = float(without @ middles**2 + having @ (1 - middles) ** 2)
    return {
        "patients": patients,
        "outcomes": outcomes,
        "auroc": _auroc(without, having),
        "accuracy": _share(_correct(without, having), patients),
        "expected_over_observed": _ratio(float(cells.sum(axis=1) @ middles), outcomes),
        "brier": _share(squares, patients),
    }


def metric_noise(table: Table, noise_sd: float) -> dict[str, float]:
    """The sd that the table's noise alone gives to `auroc` and `accuracy` (first order).

    It says nothing about how few patients the table holds.

    Args:
        table: noised counts, shape (bins, 2).
        noise_sd: of each cell of this table (of a sum over sites: sd of one times sqrt(sites)).

    Raises:
        WireError: the table has another form.
    """
    cells = check_table(table)
    figures = {"auroc": _auroc(cells[:, 0], cells[:, 1])}
    figures["accuracy"] = hold_out_metrics(cells)["accuracy"]
    return {
        "auroc": noise_sd * _auroc_slope(cells, figures["auroc"]),
        "accuracy": noise_sd * _accuracy_slope(cells, figures["accuracy"]),
    }


def _correct(without: NDArray[np.float64], having: NDArray[np.float64]) -> float:
    """Rightly classified at one half; a middle bin that straddles it counts as a yes."""
    yes = bin_middles(len(having)) >= 0.5
    return float(having[yes].sum() + without[~yes].sum())


def _auroc(without: NDArray[np.float64], having: NDArray[np.float64]) -> float:
    below = np.cumsum(without) - without
    pairs = float(having @ (below + without / 2))
    negatives, positives = float(without.sum()), float(having.sum())
    if negatives < 1 or positives < 1:
        return float("nan")
    return min(1.0, max(0.0, pairs / (negatives * positives)))


def _auroc_slope(cells: NDArray[np.float64], auroc: float) -> float:
    """Euclidean norm of the derivatives of the AUROC by the cells."""
    without, having = cells[:, 0], cells[:, 1]
    negatives, positives = float(without.sum()), float(having.sum())
    if negatives < 1 or positives < 1:
        return float("nan")
    below = np.cumsum(without) - without / 2
    above = positives - np.cumsum(having) + having / 2
    by_having = (below - auroc * negatives) / (negatives * positives)
    by_without = (above - auroc * positives) / (negatives * positives)
    return float(np.sqrt((by_having**2).sum() + (by_without**2).sum()))


def _accuracy_slope(cells: NDArray[np.float64], accuracy: float) -> float:
    patients = float(cells.sum())
    if patients < 1:
        return float("nan")
    bins = len(cells)
    return float(np.sqrt(bins * ((1 - accuracy) ** 2 + accuracy**2)) / patients)


def _share(part: float, whole: float) -> float:
    return min(1.0, max(0.0, part / whole)) if whole >= 1 else float("nan")


def _ratio(part: float, whole: float) -> float:
    return max(0.0, part / whole) if whole >= 1 else float("nan")
