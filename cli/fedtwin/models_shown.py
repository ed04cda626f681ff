"""Model cards on the screen: all in a list, or one whole."""

from collections.abc import Mapping

from fedtwin.paper import say, show_table
from fedtwin_twins.pharmacology.card import ModelCard
from fedtwin_twins.pharmacology.card_parts import ObservableCard, Variability
from fedtwin_twins.pharmacology.card_words import parameters_of
from fedtwin_twins.pharmacology.library import Entry


def show_cards(known: Mapping[str, Entry]) -> None:
    """One line for each card."""
    rows = []
    for name, entry in sorted(known.items()):
        card = entry.card
        origin = entry.origin + (" (replaces the shipped one)" if entry.replaces else "")
        rows.append(
            [
                name,
                f"{card.drug.name} {card.drug.atc}",
                card.population,
                ", ".join(one.name for one in card.observables),
                str(len(card.open_questions)),
                origin,
            ]
        )
    heads = ["model", "drug", "population", "observables", "open questions", "from"]
    show_table("", heads, rows)
    say(f"{len(known)} model cards. One whole: fedtwin research models NAME")


def show_card(entry: Entry) -> None:
    """Parameters, relations, sources, where it may be used, what is open."""
    card = entry.card
    drug = card.drug
    say(f"{card.id}: {card.title}", f"{drug.name}, ATC {drug.atc}, RxNorm {drug.rxnorm}")
    say(f"version {card.version}, SHA-256 {card.digest}, {entry.origin}")
    say(f"population: {card.population}", f"equations: {card.disposition}, effect {card.effect}")
    rows = [
        [one.name, f"{one.typical:g}", one.unit, one.relation, one.source.place]
        for one in parameters_of(card)
    ]
    heads = ["parameter", "typical", "unit", "relation", "source"]
    show_table("Parameters", heads, rows)
    _domain(card)
    _routes(card)
    for name, kind in (("patients", card.between_patients), ("occasions", card.between_occasions)):
        if kind is not None:
            say(f"between {name} ({kind.convention}): {_variability(kind)}; {kind.source.place}")
    rows = [[*_observed(one), one.residual.source.place] for one in card.observables]
    heads = ["observable", "LOINC", "unit", "limit of quantification", "error", "source"]
    show_table("What can be measured", heads, rows)
    say(*(f"target: {one.metric} of {one.observable} {one.low:g} to {one.high:g} {one.unit}, "
          f"{one.when} ({one.source})" for one in card.targets))  # fmt: skip
    say("sources:", *(f"  {name}: {one.citation} {one.doi and f'doi {one.doi}'}"
                      for name, one in card.references.items()))  # fmt: skip
    say(f"transcribed in: {card.transcribed_in}")
    say(*(f"deviation: {one}" for one in card.deviations))
    say(*(f"open question: {one}" for one in card.open_questions))
    say(f"verified by: {', '.join(card.verified_by) or 'no published case'}")


def _domain(card: ModelCard) -> None:
    rows = []
    for one in card.covariates:
        levels = ", ".join(f"{name} {value:g}" for name, value in one.levels.items())
        default = "" if one.default is None else f"{one.default:g}"
        rows.append([one.name, one.unit, _range(one.hard), _range(one.soft), default, levels])
    for derived in card.derived:
        from_ = f"{derived.equation} of {', '.join(derived.inputs.values())}"
        rows.append(
            [derived.name, derived.unit, _range(derived.hard), _range(derived.soft), "", from_]
        )
    heads = ["covariate", "unit", "refused outside", "caution outside", "if not known", "levels"]
    show_table("Where it may be used", heads, rows)


def _range(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:g} to {bounds[1]:g}"


def _routes(card: ModelCard) -> None:
    rows = [
        [
            one.name,
            one.input,
            ", ".join(f"{dose:g}" for dose in one.available_doses),
            f"{one.largest_single_dose:g}",
            f"{one.largest_daily_dose:g}",
            one.unit,
            one.doses_source,
        ]
        for one in card.routes
    ]
    heads = ["route", "input", "doses there are", "largest dose", "a day", "unit", "source"]
    show_table("Ways in, and hard limits", heads, rows)


def _variability(kind: Variability) -> str:
    return ", ".join(
        f"{name} {value:g}"
        for block in kind.blocks
        for name, value in zip(block.parameters, block.diagonal, strict=True)
    )


def _observed(one: ObservableCard) -> list[str]:
    limit = "" if one.quantification_limit is None else f"{one.quantification_limit:g}"
    error = one.residual
    size = f"additive {error.additive:g}, proportional {error.proportional:g}"
    return [one.name, one.code, one.unit, limit, f"{error.convention}: {size}"]
