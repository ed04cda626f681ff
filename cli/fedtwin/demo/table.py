"""The demo's closing table, as people read it."""

from typing import Any

from fedtwin.paper import say, show_table

HEADINGS = (
    "hospital",
    "held out",
    "accuracy",
    "pooled",
    "AUROC",
    "pooled",
    "expected/observed",
    "calibration index",
    "Brier score",
    "epsilon",
    "bytes sent",
)
LEGEND = (
    "a → b: before → after local recalibration (two numbers, fitted on the hospital's own training "
    "patients, which never leave).",
    "expected/observed: outcomes foretold over outcomes seen, 1 is best; calibration index (mean "
    "distance of risk and observed risk) and Brier score: 0 is best.",
    "pooled: the same regression without privacy, on all training patients in one place; only a "
    "demo that plays all hospitals can know it.",
)


def show_closing(closing: dict[str, Any]) -> None:
    """Print the table with its legend and what it took."""
    rows = [_row(site, facts) for site, facts in closing["sites"].items()]
    show_table("", HEADINGS, [*rows, _means(closing["sites"])])
    say(*LEGEND)
    privacy = closing["privacy"]
    say(
        f"privacy: epsilon {privacy['epsilon']:g} at delta {privacy['delta']:g} stated for each "
        "patient; the column shows what each hospital's ledger says was spent",
        f"time: training {closing['training_s']:.1f} s, everything {closing['total_s']:.1f} s",
    )


def _row(site: str, facts: dict[str, Any]) -> list[str]:
    before, after, pooled = facts["before"], facts["after"], facts["pooled"]
    return [
        site,
        str(facts["held_out_patients"]),
        _change(before, after, "accuracy"),
        number(pooled["accuracy"]),
        number(before["auroc"]),
        number(pooled["auroc"]),
        _change(before, after, "expected_over_observed", 2),
        _change(before, after, "calibration_index"),
        _change(before, after, "brier"),
        number(facts["epsilon"]),
        f"{facts['bytes_sent']:,}",
    ]


def _means(sites: dict[str, Any]) -> list[str]:
    """Plain means over the hospitals of what can be averaged."""

    def mean(part: str, key: str) -> float | None:
        values = [facts[part][key] for facts in sites.values()]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    def change(key: str) -> str:
        return f"{number(mean('before', key))} → {number(mean('after', key))}"

    return [
        "mean", "", change("accuracy"), number(mean("pooled", "accuracy")),
        number(mean("before", "auroc")), number(mean("pooled", "auroc")), "",
        change("calibration_index"), change("brier"), "", "",
    ]  # fmt: skip


def _change(before: dict[str, Any], after: dict[str, Any], key: str, digits: int = 3) -> str:
    return f"{number(before[key], digits)} → {number(after[key], digits)}"


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash where too few patients carry it."""
    return "-" if value is None or value != value else f"{value:.{digits}f}"  # noqa: PLR0124 - NaN
