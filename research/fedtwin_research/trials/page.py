"""A trial's report as one HTML page: no script, nothing from elsewhere, no clock."""

from collections.abc import Sequence
from html import escape
from math import isfinite

from fedtwin_protocol.page import fact_table, plain_table, section, whole_page
from fedtwin_research.trials.page_parts import population_section, repeat_section
from fedtwin_research.trials.plots import Interval, bands, curve, intervals, tornado
from fedtwin_research.trials.running import Finished
from fedtwin_twins.trials.endpoints import Endpoint
from fedtwin_twins.trials.summary import ArmResult, EffectResult


def trial_page(
    finished: Finished, hashes: Sequence[tuple[str, str]], open_questions: Sequence[str] = ()
) -> str:
    """Render a trial.

    Args:
        finished: the trial.
        hashes: what the result hangs on, with SHA-256 or version.
        open_questions: what the models' papers leave open, sentences.
    """
    plan = finished.plan
    title = f"{plan.title} · in-silico trial"
    parts = [
        f"<h1>{escape(title)}</h1>",
        '<section class="note"><p>All patients here are virtual. The trial says what follows from '
        "its models and assumptions; it does not show that a treatment works. Nothing in it "
        "replaces patients of a real control arm.</p></section>",
        section("At a glance", fact_table(_facts(finished))),
        _cautions((*finished.cautions, *open_questions)),
        section("Endpoints by arm", _arms(finished)),
        section("Against the control", _effects(finished)),
        section("Levels over time", _levels(finished)),
        section("Doses over time", _amounts(finished)),
        _subgroups(finished),
        _what_if(finished),
        section("Size of a real trial", _sizes(finished)),
        section("Who the virtual patients are", population_section(plan)),
        section("How to repeat it", repeat_section(plan, hashes)),
    ]
    return whole_page(title, parts)


def _facts(finished: Finished) -> list[tuple[str, str]]:
    plan = finished.plan
    facts = [
        ("Drug", f"{plan.drug.name}, {plan.drug.route}"),
        ("What plays the truth", plan.drug.truth.model),
        ("What doses are chosen by", plan.drug.dosing_model or "no model"),
        ("Patients in each trial", f"{plan.patients:,} in {len(plan.arms)} arms"),
        ("Trials (replicates)", f"{plan.replicates:,}"),
        ("Length", f"{plan.days:g} days"),
        ("Left before the end", f"{100 * finished.result.left:.1f} %"),
        ("Prognostic score", finished.score or "none"),
        ("Seed", str(plan.seed)),
    ]
    correlation = finished.result.correlation
    if isfinite(correlation.mean):
        text = f"{correlation.mean:.3f} ± {correlation.monte_carlo_error:.3f} in the control arm"
        facts.append(("Correlation of score and outcome", text))
    return facts


def _cautions(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<section class="note"><h2>Cautions</h2><ul>{items}</ul></section>'


def _arms(finished: Finished) -> str:
    text = ""
    for endpoint in finished.plan.endpoints:
        rows = [row for row in finished.result.arms if row.endpoint == endpoint.name]
        text += intervals(
            f"{endpoint.label}: {_what(endpoint)} with {_percent(finished)} interval over all "
            "virtual patients",
            [_point(finished, row) for row in rows],
            endpoint.unit,
        )
        text += plain_table(
            endpoint.label,
            ("Arm", "Patients", "With an outcome", _what(endpoint), "Interval", "SD"),
            [
                (
                    _label(finished, row.arm), f"{row.patients:,}", f"{row.observed:,}",
                    _number(row.mean), f"{_number(row.low)} to {_number(row.high)}",
                    _number(row.sd),
                )
                for row in rows
            ],
        )  # fmt: skip
    return text


def _what(endpoint: Endpoint) -> str:
    return "share" if endpoint.is_share else f"mean ({endpoint.unit})"


def _percent(finished: Finished) -> str:
    return f"{100 * finished.plan.analysis.confidence:g} %"


def _point(finished: Finished, row: ArmResult) -> Interval:
    return Interval(label=_label(finished, row.arm), value=row.mean, low=row.low, high=row.high)


def _label(finished: Finished, name: str) -> str:
    return next(arm.label for arm in finished.plan.arms if arm.name == name)


def _number(value: float) -> str:
    return f"{value:.4g}" if isfinite(value) else "-"


def _effects(finished: Finished) -> str:
    plan = finished.plan
    control = _label(finished, plan.analysis.control)
    primary = plan.endpoints[0]
    shown = [one for one in finished.result.effects if one.endpoint == primary.name]
    points = [
        Interval(
            label=f"{_label(finished, one.arm)}{', adjusted' if one.adjusted else ''}",
            value=one.effect.mean,
            low=one.low,
            high=one.high,
        )
        for one in shown
    ]
    text = intervals(
        f"{primary.label}: difference from '{control}', with the {_percent(finished)} interval "
        "that one trial of this size would state on average",
        points,
        primary.unit,
        zero=True,
    )
    text += '<div class="wide">'
    for endpoint in plan.endpoints:
        rows = [one for one in finished.result.effects if one.endpoint == endpoint.name]
        text += plain_table(
            f"{endpoint.label}: difference from '{control}'",
            (
                "Arm", "Analysis", "Difference", "Monte-Carlo error", "SD between trials",
                "Standard error stated", "Power", "± of power",
            ),
            [_effect_row(finished, one) for one in rows],
        )  # fmt: skip
    text += "</div>" + _about_effects(finished)
    return text


def _effect_row(finished: Finished, one: EffectResult) -> tuple[str, ...]:
    return (
        _label(finished, one.arm), "adjusted" if one.adjusted else "plain",
        _number(one.effect.mean), _number(one.effect.monte_carlo_error), _number(one.effect.sd),
        _number(one.error), f"{100 * one.power:.1f} %" if isfinite(one.power) else "-",
        f"{100 * one.power_error:.1f} %" if isfinite(one.power_error) else "-",
    )  # fmt: skip


def _about_effects(finished: Finished) -> str:
    plan = finished.plan
    many = plan.analysis.multiplicity == "holm" and len(plan.arms) > 2
    lines = [
        f"Power: share of trials with p below {plan.analysis.alpha:g}"
        + (", corrected for several arms by Holm's method." if many else "."),
        "The Monte-Carlo error is how far the mean over replicates may lie from that over "
        "endlessly many; the standard error is how far one trial may.",
    ]
    lines += [
        f"{_label(finished, arm)}: the adjusted estimate varies {ratio:.3f} times as much as the "
        "plain one (variance between trials)."
        for arm, ratio in finished.result.variance_ratio.items()
        if isfinite(ratio)
    ]
    lost = sum(one.not_analysed for one in finished.result.effects)
    if lost:
        lines.append(f"{lost} comparisons had too few patients with an outcome and are left out.")
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _levels(finished: Finished) -> str:
    plan, first = finished.plan, finished.replicates[0]
    window = next(
        (
            (one.low, one.high)
            for one in plan.endpoints
            if one.kind in {"trough_in_window", "time_in_window"}
            and one.low is not None
            and one.high is not None
        ),
        None,
    )
    panels = [(arm.label, first.curves[place].levels) for place, arm in enumerate(plan.arms)]
    text = (
        "True levels in the first trial: median, 25 to 75 % and 5 to 95 % of the patients still "
        "there"
    )
    return bands(text, panels, first.curves[0].hours, plan.drug.level_unit, window)


def _amounts(finished: Finished) -> str:
    plan, curves = finished.plan, finished.replicates[0].curves
    days = list(range(len(curves[0].amounts)))
    shown = days if len(days) <= 14 else sorted({*days[:3], *days[:: max(1, len(days) // 10)]})
    rows = [
        (arm.label, *(f"{curves[place].amounts[day]:g}" for day in shown))
        for place, arm in enumerate(plan.arms)
    ]
    caption = f"Median amount prescribed a day in the first trial, {plan.drug.dose_unit}"
    heads = ("Arm", *(f"day {day + 1}" for day in shown))
    return f'<div class="wide">{plain_table(caption, heads, rows)}</div>'


def _subgroups(finished: Finished) -> str:
    plan, found = finished.plan, finished.result.subgroups
    if not found:
        return ""
    endpoint = plan.endpoints[0]
    rows = [row for row in found if row.endpoint == endpoint.name and row.observed]
    ordered = sorted(rows, key=lambda row: row.subgroup)
    names = sorted({row.subgroup for row in rows})
    text = "".join(
        intervals(
            f"{name}: {endpoint.label}",
            [_point(finished, row) for row in ordered if row.subgroup == name],
            endpoint.unit,
        )
        for name in names
    )
    table = plain_table(
        endpoint.label,
        ("Phenotype", "Arm", "Patients", _what(endpoint), "Interval"),
        [
            (
                row.subgroup, _label(finished, row.arm), f"{row.patients:,}", _number(row.mean),
                f"{_number(row.low)} to {_number(row.high)}",
            )
            for row in ordered
        ],
    )  # fmt: skip
    return section("By phenotype", text + table)


def _what_if(finished: Finished) -> str:
    if not finished.changed:
        return ""
    plan = finished.plan
    sizes = finished.result.sizes
    arm = sizes.arm if sizes is not None else next(iter(finished.unchanged))
    rows = [
        (f"{one.label} ({one.values[0]:g} / {one.values[1]:g})", *one.effects[arm])
        for one in finished.changed
        if all(isfinite(value) for value in one.effects[arm])
    ]
    text = tornado(
        f"{plan.endpoints[0].label}: difference of '{_label(finished, arm)}' from the control "
        "under other settings (outlined: low, filled: high; the line is as planned)",
        rows,
        finished.unchanged[arm],
        plan.endpoints[0].unit,
    )
    table = plain_table(
        f"Difference over {min(plan.what_if_replicates, plan.replicates)} trials; as planned "
        f"{_number(finished.unchanged[arm])}",
        ("Setting", "Low", "High", "Difference at low", "Difference at high"),
        [
            (
                one.label, f"{one.values[0]:g}", f"{one.values[1]:g}",
                *(_number(value) for value in one.effects[arm]),
            )
            for one in finished.changed
        ],
    )  # fmt: skip
    return section("What the result hangs on", text + table)


def _sizes(finished: Finished) -> str:
    sizes = finished.result.sizes
    if sizes is None:
        return "<p>No difference was stated, and none was seen.</p>"
    asked, planned = sizes.question, sizes.planned
    facts = [
        ("Arm", f"{_label(finished, sizes.arm)}, as many controls"),
        ("Difference to be found", f"{asked.difference:.4g}"),
        ("SD within an arm", f"{asked.sd:.4g}, taken {100 * asked.sd_inflation:g} % larger"),
        ("Two-sided alpha, power", f"{asked.alpha:g}, {asked.power:g}"),
        ("Without an outcome", f"{100 * asked.dropout:.1f} %"),
        (
            "Correlation of the score",
            f"{sizes.correlation:.3f}, taken {100 * asked.correlation_deflation:g} % smaller",
        ),
        ("Patients needed", f"{planned.total:,} in both arms; saved {100 * planned.saving:.1f} %"),
    ]
    points = [(one.correlation, float(one.total)) for one in sizes.panel]
    mark = (abs(sizes.correlation), float(planned.total))
    plot = curve(
        "Patients needed in both arms by the correlation of the prognostic score with the outcome",
        points,
        mark,
        ("correlation", "patients"),
    )
    rows = [
        (
            f"{one.correlation:g}", f"{one.treated:.1f}", f"{one.control:.1f}", f"{one.total:,}",
            f"{100 * one.saving:.1f} %",
        )
        for one in sizes.panel[::2]
    ]  # fmt: skip
    heads = ("Correlation", "Treated", "Control", "Together", "Saved")
    return fact_table(facts) + plot + plain_table("Sizes", heads, rows)
