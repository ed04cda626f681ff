"""`fedtwin research models`: the published drug models, and whether a site's own may be used."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtwin.paper import say, show_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fedtwin_twins.pharmacology.card import ModelCard
    from fedtwin_twins.pharmacology.card_model import CardModel
    from fedtwin_twins.pharmacology.library import Entry


def add_model_commands(app: typer.Typer) -> None:
    """Put the command of this module below `fedtwin research`."""
    app.command("models")(models)


def models(
    card: Annotated[
        str | None, typer.Argument(help="Show this card in full; without it, a list.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder", "--cards", help="Your own cards (*.yaml) beside those that come with it."
        ),
    ] = None,
) -> None:
    """List model cards, show one with units and sources, and check a folder of your own.

    Everything that is wrong with your cards is said at once. See docs/model-cards.md.

    Example: fedtwin research models vancomycin_goti_2018
    """
    from fedtwin_protocol.errors import ConfigurationError
    from fedtwin_twins.pharmacology.library import library

    try:
        entries = library(folder)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    if card is None:
        _list(entries)
    elif card in entries:
        _show(entries[card])
    else:
        raise ConfigurationError(f"no model card '{card}'; expected {', '.join(entries)}")


def _list(entries: "Mapping[str, Entry]") -> None:
    lines = [
        [
            name,
            f"{entry.card.drug.name} {entry.card.drug.atc}",
            entry.card.population,
            ", ".join(one.name for one in entry.card.observables),
            str(len(entry.card.open_questions)),
            _origin(entry),
            entry.card.digest[:8],
        ]
        for name, entry in entries.items()
    ]
    show_table(
        "",
        ["card", "drug, ATC", "population", "observables", "open questions", "from", "hash"],
        lines,
    )


def _origin(entry: "Entry") -> str:
    return f"{entry.origin}, in place of the shipped one" if entry.replaces else entry.origin


def _show(entry: "Entry") -> None:
    from fedtwin_twins.pharmacology.card_model import CardModel

    card = entry.card
    model = CardModel(card)
    say(
        f"{card.title}",
        f"{card.id} version {card.version}, sha256 {card.digest}, {_origin(entry)}",
        f"{card.drug.name}, ATC {card.drug.atc}, RxNorm {card.drug.rxnorm}",
        f"made of: {card.population}",
        f"{card.disposition} with the effect {card.effect}; a covariate between two records: "
        f"{card.covariate_rule}; at one time: {card.record_order}",
    )
    columns = ["parameter", "typical", "unit", "relation", "source"]
    rows = [
        [one.name, f"{one.typical:g}", one.unit, one.relation, one.source.place]
        for one in model.parameters
    ]
    show_table("", columns, rows)
    show_table("", ["covariate", "unit", "hard", "soft", "from"], list(_covariates(card)))
    _show_variability(model)
    _show_routes(card)
    _show_observables(card)
    for target in card.targets:
        between = "" if target.within is None else " within {:g} to {:g}".format(*target.within)
        say(
            f"target: {target.metric} of {target.observable}{between} "
            f"{target.low:g} to {target.high:g} "
            f"{target.unit}, {target.when} ({target.source})"
        )
    for reference in card.references.values():
        say(f"reference: {reference.citation} {reference.doi}".rstrip())
    say(f"transcribed in: {card.transcribed_in}")
    say(*(f"deviation: {text}" for text in card.deviations))
    say(*(f"open question: {text}" for text in card.open_questions))
    say(*(f"not checked: {text}" for text in card.unchecked))
    say(f"verified by: {', '.join(card.verified_by) or 'no published case'}")


def _show_routes(card: "ModelCard") -> None:
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
    heads = ["route", "input", "doses there are", "largest dose", "largest a day", "unit", "source"]
    show_table("", heads, rows)


def _show_observables(card: "ModelCard") -> None:
    rows = []
    for one in card.observables:
        error = one.residual
        limit = "" if one.quantification_limit is None else f"{one.quantification_limit:g}"
        size = f"{error.convention}: additive {error.additive:g}, share {error.proportional:g}"
        rows.append([one.name, one.code, one.unit, limit, size, error.source.place])
    heads = ["observable", "LOINC", "unit", "limit of quantification", "error", "source"]
    show_table("", heads, rows)


def _covariates(card: "ModelCard") -> "Iterator[list[str]]":
    for one in card.covariates:
        default = "record" if one.default is None else f"record, or {one.default:g}"
        if one.levels:
            default += f" ({', '.join(f'{name} {value:g}' for name, value in one.levels.items())})"
        yield [one.name, one.unit, _range(one.hard), _range(one.soft), default]
    for derived in card.derived:
        yield [
            derived.name,
            derived.unit,
            _range(derived.hard),
            _range(derived.soft),
            f"{derived.equation} of {', '.join(derived.inputs.values())}",
        ]


def _range(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:g} to {bounds[1]:g}"


def _show_variability(model: "CardModel") -> None:
    rows = []
    places = (
        ("patients", model.card.between_patients),
        ("occasions", model.card.between_occasions),
    )
    for between, one in places:
        for block in one.blocks if one is not None else ():
            for name, value in zip(block.parameters, block.diagonal, strict=True):
                rows.append([name, between, f"{value:g}", one.convention if one else ""])
    if rows:
        show_table("", ["varies", "between", "by", "which is"], rows)
    else:
        say("no variability is published")
