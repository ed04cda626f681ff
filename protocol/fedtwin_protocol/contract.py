"""The feature contract: what every column of a study means, fixed before any data are seen.

A feature states its concept, codes, unit, plausible range, window and summary before the index
date, a fixed centre and scale, a clip range, and what a missing value means. Nothing is ever
computed from data: per-site scaling costs privacy and erases real differences between hospitals.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Code = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]+//\S+$", max_length=120)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
Summary = Literal["last", "first", "mean", "min", "max", "count"]
MissingRule = Literal["exclude", "center", "flag"]


class Part(BaseModel):
    """A piece of a plan: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def faults(error: ValidationError) -> str:
    """What is wrong with a value that came from a file, in one line, without the value itself."""
    texts = []
    for item in error.errors(include_input=False, include_url=False):
        place = ".".join(str(part) for part in item["loc"])
        texts.append(f"{place}: {complaint(item)}" if place else complaint(item))
    return "; ".join(texts)


def complaint(item: Any) -> str:
    """One of pydantic's errors in words that the author of a file understands."""
    known = {
        "extra_forbidden": "unknown key",
        "missing": "is missing",
        "tuple_type": "expected a list, such as [a, b]",
        "model_type": "expected keys with their values, such as {key: value}",
        "dict_type": "expected keys with their values, such as {key: value}",
    }
    return known.get(item["type"]) or str(item["msg"]).removeprefix("Value error, ")


class Feature(Part):
    """One question asked of a patient's timeline as of the index date.

    Attributes:
        name: the column's name, in snake case.
        kind: `number` (measured), `flag` (a recorded yes or no), `presence` (any event with one of
            the codes in the window), `category` (one of `categories`), `age` (years at the index
            date), `sex` (1 male, 0 female).
        codes: `<VOCABULARY>//<code>`, any of which answers the question.
        unit: UCUM unit of `plausible`, `center`, `scale`; values are converted to it.
        plausible: inclusive range outside which a value counts as missing.
        window_days: how far back before the index date a value may lie; none means no limit.
        summary: which of several values in the window is taken; `count`: how many plausible values
            there are, or of a `presence` how many events, 0 where there is none.
        categories: allowed values of a category; the first is the reference and has no column.
        center: subtracted, in `unit`; of a `count`, a number of values.
        scale: divided by, in the same.
        clip: bounds after centring and scaling.
        missing: `exclude` the patient, use the `center` (0 after scaling), or that and a `flag`
            column that says so.
        source: where the centre, scale and range come from.
    """

    name: Name
    kind: Literal["number", "flag", "presence", "category", "age", "sex"]
    description: str = Field(default="", max_length=400)
    codes: tuple[Code, ...] = ()
    unit: str = Field(default="1", max_length=40)
    plausible: tuple[float, float] | None = None
    window_days: int | None = Field(default=None, ge=0, le=36525)
    summary: Summary = "last"
    categories: tuple[str, ...] = ()
    center: float = 0.0
    scale: float = Field(default=1.0, gt=0)
    clip: tuple[float, float] = (-5.0, 5.0)
    missing: MissingRule = "exclude"
    source: str = Field(default="", max_length=600)

    @model_validator(mode="after")
    def _adds_up(self) -> "Feature":
        if self.kind in {"number", "flag", "presence", "category"} and not self.codes:
            raise ValueError(f"feature '{self.name}' of kind '{self.kind}' names no codes")
        if self.kind == "number" and self.plausible is None:
            raise ValueError(f"feature '{self.name}' needs a plausible range, such as [40, 300]")
        if self.kind == "category" and len(self.categories) < 2:
            raise ValueError(f"feature '{self.name}' needs at least two categories")
        if self.counts and self.kind not in {"number", "presence"}:
            raise ValueError(
                f"feature '{self.name}': 'count' belongs to the kinds 'number' and 'presence', and "
                f"this one is of kind '{self.kind}'"
            )
        if len(set(self.categories)) != len(self.categories):
            raise ValueError(f"feature '{self.name}' names a category twice")
        for label, pair in (("plausible", self.plausible), ("clip", self.clip)):
            if pair is not None and not pair[0] < pair[1]:
                raise ValueError(f"feature '{self.name}': {label} {pair} is not low to high")
        return self

    @property
    def counts(self) -> bool:
        """Whether what is learned from is how many values or events there are."""
        return self.summary == "count"

    @property
    def yes_or_no(self) -> bool:
        """Whether what is learned from is 1 or 0."""
        return self.kind in {"flag", "sex"} or (self.kind == "presence" and not self.counts)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the model's columns that this feature makes, in order."""
        if self.kind == "category":
            names = tuple(f"{self.name}={value}" for value in self.categories[1:])
        else:
            names = (self.name,)
        return (*names, f"{self.name} missing") if self.missing == "flag" else names


class FeatureContract(Part):
    """All features of a study, in the order of the model's columns."""

    features: Annotated[tuple[Feature, ...], Field(min_length=1, max_length=5000)]

    @model_validator(mode="after")
    def _names_are_unique(self) -> "FeatureContract":
        names = [feature.name for feature in self.features]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"features are named twice: {', '.join(twice)}")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The model's columns, in order."""
        return tuple(column for feature in self.features for column in feature.columns)
