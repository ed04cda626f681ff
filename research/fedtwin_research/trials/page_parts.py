"""The report's sections that tell what went in: the virtual patients, and how to repeat it all."""

from collections.abc import Sequence
from html import escape

from fedtwin_protocol.page import fact_table, plain_table
from fedtwin_twins.trials.ancestry import ANCESTRIES, TABLE, frequencies_of
from fedtwin_twins.trials.covariates import Covariate
from fedtwin_twins.trials.plan import TrialPlan
from fedtwin_twins.trials.population import Population


def population_section(plan: TrialPlan) -> str:
    """Ancestry, covariates, genes, conditions, adherence, dropout, each with its source."""
    who = plan.population
    mix = ", ".join(
        f"{100 * share:g} % {ANCESTRIES[name]} ({name})" for name, share in who.ancestry.items()
    )
    taken, gone = who.adherence, who.dropout
    facts = [
        ("Ancestry", mix),
        (
            "Adherence",
            f"{100 * taken.taken_share:g} % of doses taken, persistence {taken.persistence:g}, "
            f"SD between patients {taken.between_patients_sd:g} (logit); {taken.source}",
        ),
        (
            "Dropout",
            f"{100 * gone.share:g} % by day {gone.by_day:g}, shape {gone.shape:g}; {gone.source}",
        ),
    ]
    return fact_table(facts) + _covariates(who) + _genes(who) + _conditions(who)


def _covariates(who: Population) -> str:
    if who.rows is not None:
        names = ", ".join(f"{name} ({unit})" for name, unit in who.rows.units.items())
        text = f"Whole rows drawn with replacement from {who.rows.file}: {names}; {who.rows.source}"
        return f"<p>{escape(text)}</p>"
    rows = [
        (one.name, one.unit, one.distribution, *_moments(one), one.source) for one in who.covariates
    ]
    heads = ("Covariate", "Unit", "Distribution", "Mean", "SD", "Range", "Source")
    text = plain_table("Covariates, before the cut to their range", heads, rows)
    if who.correlations:
        pairs = [(one.first, one.second, f"{one.value:g}") for one in who.correlations]
        text += plain_table("Correlations (Gaussian copula)", ("", "", "Correlation"), pairs)
    return text


def _moments(one: Covariate) -> tuple[str, str, str]:
    mean = "" if one.mean is None else f"{one.mean:g}"
    others = ", ".join(f"{name} {it.mean:g}" for name, it in one.by_ancestry.items())
    sd = "" if one.sd is None else f"{one.sd:g}"
    bounds = "" if one.lowest is None else f"{one.lowest:g} to {one.highest:g}"
    return f"{mean}{f' ({others})' if others else ''}", sd, bounds


def _genes(who: Population) -> str:
    rows = []
    for gene in who.genes:
        for ancestry in who.ancestry:
            found = frequencies_of(gene, ancestry)
            listed = ", ".join(
                f"{name} {100 * share:.2f} %"
                for name, share in zip(found.alleles, found.frequencies, strict=True)
            )
            rows.append((gene, ancestry, listed, "; ".join(dict.fromkeys(found.sources))))
    if not rows:
        return ""
    caption = f"Alleles, drawn by Hardy-Weinberg ({TABLE})"
    return plain_table(caption, ("Gene", "Ancestry", "Alleles", "Source"), rows)


def _conditions(who: Population) -> str:
    rows = [
        (
            one.name.replace("_", " "),
            one.code or "",
            f"{100 * one.prevalence:g} %",
            ", ".join(
                f"{name} times {factor:g}"
                for name, factor in {**one.covariate_factors, **one.parameter_factors}.items()
            ),
            one.source,
        )
        for one in who.conditions
    ]
    heads = ("Condition", "Code", "Prevalence", "Changes", "Source")
    return plain_table("Conditions", heads, rows) if rows else ""


def repeat_section(plan: TrialPlan, hashes: Sequence[tuple[str, str]]) -> str:
    """The command, and everything that must be the same."""
    text = (
        "<p>The plan that lies beside this page gives the same files again, byte for byte, with "
        "the versions below on the same kind of machine, whatever the number of workers:</p>"
        f"<pre>fedtwin research trial plan.yaml --out {escape(plan.name)}</pre>"
    )
    return text + fact_table(hashes)
