"""What another drug does to a drug: a factor on a parameter where one is published, or what to do.

A pair that no table speaks of is *not known*; it is never reported as free of interaction. The
sentence for such a pair says so, and so does the list for a whole medication.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Final, Literal, cast

from fedtwin_twins.pharmacology.drugs import Drug, find_drug
from fedtwin_twins.pharmacology.tables import Origin, Row, Verified, built_in_text, read_table

FORMAT: Final = "fedtwin-interactions/1"
Action = Literal[
    "contraindicated", "avoid", "limit", "adjust", "monitor", "no effect seen", "not known"
]
ACTIONS: Final = ("contraindicated", "avoid", "limit", "adjust", "monitor", "no effect seen")
"""The most serious first."""
_COLUMNS: Final = (
    *("drug", "other", "parameter", "factor", "low", "high", "interval_kind", "covariate"),
    *("action", "limit", "text", "source", "verified", "note"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterChange:
    """A published factor on a parameter of the drug.

    Attributes:
        parameter: its name; `apparent clearance` is clearance over bioavailability.
        factor: on it.
        interval: of the factor; none where none is published.
        interval_kind: such as `90 % confidence interval`; empty where there is none.
        source: of the number.
        verified: how far the row was checked.
        note: what else to know.
    """

    parameter: str
    factor: float
    interval: tuple[float, float] | None
    interval_kind: str
    source: str
    verified: Verified
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Interaction:
    """What is known of a pair, or that nothing is.

    Attributes:
        drug: whose fate changes.
        other: the drug that is added.
        action: what to do; `not known` where no table speaks of the pair.
        limit: of the dose, in words.
        text: what happens and what to do.
        changes: published factors; empty where there are none.
        covariates: what a model's card takes for this, by name.
        source: of the advice; empty where nothing is known.
        verified: how far the advice was checked; none where nothing is known.
    """

    drug: str
    other: str
    action: Action
    limit: str
    text: str
    changes: tuple[ParameterChange, ...] = ()
    covariates: tuple[str, ...] = ()
    source: str = ""
    verified: Verified | None = None

    @property
    def known(self) -> bool:
        """Whether a table speaks of the pair."""
        return self.action != "not known"


@dataclass(frozen=True, kw_only=True, slots=True)
class InteractionTable:
    """All rows of a table, by drug and the other one."""

    origin: Origin
    pairs: Mapping[tuple[str, str], tuple[Row, ...]]
    names: Mapping[str, Drug] | None = None


def parse_interactions(
    text: str, where: str, *, drugs: Mapping[str, Drug] | None = None
) -> InteractionTable:
    """Read and check a table.

    Raises:
        Refusal: it is damaged; with file, line and what was expected.
    """
    origin, rows = read_table(text, where, FORMAT, _COLUMNS)
    pairs: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        _check(row)
        mine = pairs.setdefault((_name(row, "drug", drugs), _name(row, "other", drugs)), [])
        if any(other.text("parameter") == row.text("parameter") for other in mine):
            raise row.refusal("parameter", "every parameter of a pair once")
        if mine and mine[0].text("action") != row.text("action"):
            raise row.refusal("action", f"{mine[0].text('action')}, as in line {mine[0].line}")
        mine.append(row)
    found = {pair: tuple(mine) for pair, mine in pairs.items()}
    return InteractionTable(origin=origin, pairs=found, names=drugs)


@cache
def built_in_interactions() -> InteractionTable:
    """The table that comes with this package."""
    return parse_interactions(built_in_text("interactions.csv"), "interactions.csv")


def _name(row: Row, column: str, drugs: Mapping[str, Drug] | None) -> str:
    try:
        return find_drug(row.needed(column), drugs).name
    except ValueError as error:
        raise row.refusal(column, str(error)) from error


def _check(row: Row) -> None:
    row.one_of("action", ACTIONS)
    row.needed("text")
    row.needed("source")
    row.verified()
    factor, low, high = row.number("factor"), row.number("low"), row.number("high")
    if (factor is None) != (not row.text("parameter")):
        raise row.refusal("factor", "a factor with its parameter, or neither")
    if factor is not None and factor <= 0:
        raise row.refusal("factor", "a number above 0")
    if (low is None) != (high is None) or (low is not None and not row.text("interval_kind")):
        raise row.refusal("low", "both ends of an interval with its kind, or none")
    if low is not None and high is not None and not (factor and 0 < low <= factor <= high):
        raise row.refusal("low", "an interval around the factor")


def interaction(drug: str, other: str, table: InteractionTable | None = None) -> Interaction:
    """What the other drug does to the first.

    Args:
        drug: whose fate is asked for, by name, synonym or code.
        other: the drug that is added.
        table: that of this package if none is given.

    Raises:
        Refusal: a drug that no table speaks of.
    """
    rows = built_in_interactions() if table is None else table
    mine, added = find_drug(drug, rows.names).name, find_drug(other, rows.names).name
    found = rows.pairs.get((mine, added))
    if found is None:
        return Interaction(
            drug=mine,
            other=added,
            action="not known",
            limit="",
            text=(
                f"Not known: the table of {rows.origin.version} does not say what {added} does "
                f"to {mine}. That is not the same as no interaction: ask a pharmacist."
            ),
        )
    first = found[0]
    return Interaction(
        drug=mine,
        other=added,
        action=cast(Action, first.text("action")),
        limit=first.text("limit"),
        text=first.text("text"),
        changes=tuple(_changes(found)),
        covariates=tuple(filter(None, (row.text("covariate") for row in found))),
        source=first.text("source"),
        verified=first.verified(),
    )


def interactions_within(
    drugs: Sequence[str], table: InteractionTable | None = None
) -> tuple[Interaction, ...]:
    """Every ordered pair of a medication, the most serious first and what is not known last.

    Raises:
        Refusal: a drug that no table speaks of.
    """
    rows = built_in_interactions() if table is None else table
    names = list(dict.fromkeys(find_drug(name, rows.names).name for name in drugs))
    found = [interaction(drug, other, rows) for drug, other in permutations(names, 2)]
    order = {action: place for place, action in enumerate((*ACTIONS, "not known"))}
    return tuple(sorted(found, key=lambda one: (order[one.action], one.drug, one.other)))


def _changes(rows: Sequence[Row]) -> Iterator[ParameterChange]:
    for row in rows:
        factor, low, high = row.number("factor"), row.number("low"), row.number("high")
        if factor is not None:
            yield ParameterChange(
                parameter=row.text("parameter"),
                factor=factor,
                interval=None if low is None or high is None else (low, high),
                interval_kind=row.text("interval_kind"),
                source=row.text("source"),
                verified=row.verified(),
                note=row.text("note"),
            )
