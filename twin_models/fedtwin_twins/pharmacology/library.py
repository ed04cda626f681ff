"""Model cards by name: those that come with this package, and a site's own folder of them.

A site's card of the same name takes the place of the shipped one, and the list says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Final

import yaml

from fedtwin_twins.pharmacology.card import ModelCard
from fedtwin_twins.pharmacology.reading_cards import card_from
from fedtwin_twins.pharmacology.strict_yaml import load_strictly
from fedtwin_twins.twin.refusals import Problem, Refusal

_LARGEST: Final = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A card in a library.

    Attributes:
        card: loaded and checked.
        origin: `shipped`, or the file of the site.
        replaces: the digest of the shipped card of this name, if the site's took its place.
    """

    card: ModelCard
    origin: str
    replaces: str = ""


def read_card(path: Path | Traversable) -> ModelCard:
    """A card from a YAML file.

    Raises:
        Refusal: it cannot be read, or is no card that may be used.
    """
    where = path.name
    try:
        data = path.read_bytes()
        if len(data) > _LARGEST:
            raise Refusal(
                Problem(field=where, value=f"{len(data)} bytes", allowed=f"at most {_LARGEST}")
            )
        content = load_strictly(data.decode("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Refusal(Problem(field=where, value="unreadable", remedy=str(error))) from None
    card = card_from(content, where)
    if f"{card.id}.yaml" != where:
        raise Refusal(
            Problem(field=f"{where}: id", value=card.id, allowed=where.removesuffix(".yaml"))
        )
    return card


@cache
def shipped() -> Mapping[str, ModelCard]:
    """The cards that come with this package, by name."""
    folder = files("fedtwin_twins.pharmacology") / "cards"
    found = sorted((one for one in folder.iterdir() if one.name.endswith(".yaml")), key=_name)
    cards = [read_card(one) for one in found]
    return MappingProxyType({card.id: card for card in cards})


def _name(file: Traversable) -> str:
    return file.name


def library(folder: Path | None = None) -> Mapping[str, Entry]:
    """All cards, by name.

    Args:
        folder: of the site's own cards, `*.yaml`; none: only the shipped ones.

    Raises:
        Refusal: a card of the site may not be used, or the folder is not there.
    """
    entries = {name: Entry(card=card, origin="shipped") for name, card in shipped().items()}
    if folder is None:
        return MappingProxyType(entries)
    if not folder.is_dir():
        raise Refusal(Problem(field="cards folder", value=str(folder), allowed="a folder"))
    problems: list[Problem] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            card = read_card(path)
        except Refusal as refusal:
            problems.extend(refusal.problems)
            continue
        replaced = entries.get(card.id)
        digest = replaced.card.digest if replaced is not None else ""
        entries[card.id] = Entry(card=card, origin=str(path), replaces=digest)
    if problems:
        raise Refusal(*problems)
    return MappingProxyType(entries)


def load_card(name: str, folder: Path | None = None) -> ModelCard:
    """One card by name.

    Raises:
        Refusal: there is none of this name.
    """
    entries = library(folder)
    if name not in entries:
        raise Refusal(Problem(field="model card", value=name, allowed=" or ".join(entries)))
    return entries[name].card


def cards_of(drug: str, folder: Path | None = None) -> list[ModelCard]:
    """All cards of a drug, by its name or ATC code, in order of their names."""
    return [
        entry.card
        for entry in library(folder).values()
        if drug in (entry.card.drug.name, entry.card.drug.atc)
    ]
