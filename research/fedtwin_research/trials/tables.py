"""A trial's results as CSV: one file a question, numbers with nine digits."""

import csv
import io
from collections.abc import Iterable, Sequence
from math import isfinite

from fedtwin_research.trials.running import Finished
from fedtwin_twins.trials.analysis import Estimate
from fedtwin_twins.trials.plan import TrialPlan
from fedtwin_twins.trials.summary import ArmResult


def arms_table(finished: Finished) -> str:
    """Every arm and endpoint, all replicates together."""
    return _table(
        (*_WHO, *_FIGURES), [_arm_row(finished.plan, row) for row in finished.result.arms]
    )


def subgroups_table(finished: Finished) -> str:
    """The same by phenotype; only a line of names where no subgroup was planned."""
    rows = [
        (*_arm_row(finished.plan, row)[:2], row.subgroup, *_arm_row(finished.plan, row)[2:])
        for row in finished.result.subgroups
    ]
    return _table((*_WHO, "subgroup", *_FIGURES), rows)


_WHO = ("arm", "endpoint")
_FIGURES = ("unit", "patients", "with_outcome", "mean", "low", "high", "sd")


def _arm_row(plan: TrialPlan, row: ArmResult) -> tuple[object, ...]:
    unit = next(one.unit for one in plan.endpoints if one.name == row.endpoint)
    return (
        row.arm, row.endpoint, unit, row.patients, row.observed, row.mean, row.low, row.high, row.sd
    )  # fmt: skip


def effects_table(finished: Finished) -> str:
    """Every arm against the control, over the replicates."""
    heads = (
        *("arm", "control", "endpoint", "analysis", "effect", "monte_carlo_error"),
        *("sd_between_trials", "standard_error", "low", "high", "power", "power_error"),
        *("trials", "not_analysed"),
    )
    rows = [
        (
            one.arm, finished.plan.analysis.control, one.endpoint, _analysis(one.adjusted),
            one.effect.mean, one.effect.monte_carlo_error, one.effect.sd, one.error, one.low,
            one.high, one.power, one.power_error, one.effect.replicates, one.not_analysed,
        )
        for one in finished.result.effects
    ]  # fmt: skip
    return _table(heads, rows)


def replicates_table(finished: Finished) -> str:
    """Every single trial: one row for each replicate, arm, endpoint and analysis."""
    plan = finished.plan
    heads = (
        *("replicate", "arm", "endpoint", "analysis", "effect", "standard_error", "low", "high"),
        *("p_value", "with_outcome"),
    )
    rows = [
        (one.number, plan.arms[row.arm].name, plan.endpoints[row.endpoint].name, kind, *_cells(it))
        for one in finished.replicates
        for row in one.comparisons
        for kind, it in ((_analysis(False), row.plain), (_analysis(True), row.adjusted))
        if kind == _analysis(False) or it is not None
    ]
    return _table(heads, rows)


def what_if_table(finished: Finished) -> str:
    """The primary effect under changed settings."""
    heads = ("setting", "label", "arm", "low", "effect_at_low", "high", "effect_at_high")
    rows = [
        (one.setting, one.label, arm, one.values[0], low, one.values[1], high)
        for one in finished.changed
        for arm, (low, high) in one.effects.items()
    ]
    unchanged = [("", "as planned", arm, "", it, "", it) for arm, it in finished.unchanged.items()]
    return _table(heads, [*(unchanged if rows else []), *rows])


def sizes_table(finished: Finished) -> str:
    """How many patients a real trial needs, by the score's correlation."""
    heads = ("correlation", "treated", "control", "total", "saving")
    sizes = finished.result.sizes
    panel = () if sizes is None else sizes.panel
    rows = [(one.correlation, one.treated, one.control, one.total, one.saving) for one in panel]
    return _table(heads, rows)


def _analysis(adjusted: bool) -> str:
    return "adjusted for the prognostic score" if adjusted else "not adjusted"


def _cells(estimate: Estimate | None) -> tuple[object, ...]:
    if estimate is None:
        return ("", "", "", "", "", 0)
    return (
        estimate.effect, estimate.error, estimate.low, estimate.high, estimate.p_value,
        estimate.patients,
    )  # fmt: skip


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows([_spelled(cell) for cell in row] for row in rows)
    return out.getvalue()


def _spelled(cell: object) -> object:
    if isinstance(cell, float):
        return f"{cell:.9g}" if isfinite(cell) else ""
    return cell
