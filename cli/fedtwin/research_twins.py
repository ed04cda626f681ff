"""`fedtwin research twin`: one patient in a file, and what a twin answers."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtwin.paper import console, now, say

if TYPE_CHECKING:
    from fedtwin_research.twins.answering import Answer

_STANDARD_OUTPUT = "-"


def add_twin_commands(app: typer.Typer) -> None:
    """Put the command of this module below `fedtwin research`."""
    app.command("twin")(twin)


def twin(
    patient: Annotated[
        str | None,
        typer.Argument(help="The patient's file, YAML (docs/twin.md); with --example, a drug."),
    ] = None,
    advise: Annotated[
        bool, typer.Option("--advise", help="Propose a regimen even where the file has no goal.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Write a page with plots there.")] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", help="Write the answer there for machines; - prints it.")
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="Cards in place of the file's, with commas between them.")
    ] = None,
    cards: Annotated[Path | None, typer.Option(help="Folder with model cards of your own.")] = None,
    seed: Annotated[int, typer.Option(help="Of all draws.", min=0)] = 1,
    today: Annotated[
        str | None, typer.Option(help="Day on which guidelines are asked; today if none.")
    ] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Print a file with comments that works as it is.")
    ] = False,
) -> None:
    """One patient's twin: what models believe, a forecast, and a regimen with its reasons.

    For research, teaching and a clinician's own judgement: nothing here doses a patient. Ends with
    status 2 where the file is refused, or where no regimen meets the goal within the limits.

    Example: fedtwin research twin patient.yaml --report patient.html
    """
    from fedtwin_protocol.errors import ConfigurationError

    if example:
        say(_example(patient or "vancomycin").rstrip())
        return
    if patient is None:
        raise ConfigurationError(
            "name a patient's file, or see one with 'fedtwin research twin --example vancomycin'"
        )
    _torch_or_say_how()
    from fedtwin.auditing import write_file
    from fedtwin.twin_shown import show_answer
    from fedtwin_research.twins.answering import answer_to
    from fedtwin_research.twins.asking import Settings, question_of
    from fedtwin_research.twins.machine import machine_answer
    from fedtwin_research.twins.page import twin_page
    from fedtwin_research.twins.reading import read_file
    from fedtwin_research.twins.sentences import refusal_lines

    settings = Settings(
        today=_day(today),
        seed=seed,
        advise=advise,
        models=tuple(one.strip() for one in (models or "").split(",") if one.strip()),
        cards=cards,
    )
    with _refusals(patient), _progress() as tell:
        answer = answer_to(question_of(read_file(Path(patient)), settings), tell)
    if json_file == _STANDARD_OUTPUT:
        say(_text(answer, machine_answer))
    else:
        show_answer(answer)
    if json_file not in (None, _STANDARD_OUTPUT):
        write_file(Path(str(json_file)), _text(answer, machine_answer).encode())
        say(f"the answer for machines is {json_file}")
    if report is not None:
        write_file(report, twin_page(answer).encode())
        if json_file != _STANDARD_OUTPUT:
            say(f"the report is {report}")
    if answer.refusal:
        raise ConfigurationError("no regimen is proposed:\n" + "\n".join(refusal_lines(answer)))


def _example(drug: str) -> str:
    from fedtwin_protocol.errors import ConfigurationError

    folder = files("fedtwin_research") / "twins" / "examples"
    there = sorted(one.name.removesuffix(".yaml") for one in folder.iterdir())
    if drug not in there:
        raise ConfigurationError(f"there is no example {drug!r}: choose {' or '.join(there)}")
    return (folder / f"{drug}.yaml").read_text(encoding="utf-8")


def _torch_or_say_how() -> None:
    from importlib.util import find_spec

    from fedtwin_protocol.errors import ConfigurationError

    if find_spec("torch") is None:
        raise ConfigurationError(
            "twins compute with torch, which is not installed here: "
            "pip install --constraint constraints.txt 'fedtwin[trials]'"
        )


def _day(text: str | None) -> date:
    from fedtwin_protocol.errors import ConfigurationError

    if text is None:
        return now().date()
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(f"expected --today such as 2026-03-01, found {text!r}") from error


@contextmanager
def _refusals(patient: str) -> Iterator[None]:
    """A twin's refusal ends the command with its sentences and status 2."""
    from fedtwin_protocol.errors import ConfigurationError
    from fedtwin_twins.twin.refusals import Refusal

    try:
        yield
    except Refusal as refusal:
        lines = "\n".join(f"  {one}" for one in refusal.problems)
        count = len(refusal.problems)
        things = "one thing is" if count == 1 else f"{count} things are"
        raise ConfigurationError(f"{patient}: {things} to be mended\n{lines}") from refusal


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """What is being done, where somebody watches."""
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("reading") as status:
        yield status.update


def _text(answer: "Answer", as_values: "Callable[[Answer], object]") -> str:
    return json.dumps(as_values(answer), indent=1, ensure_ascii=False, allow_nan=False)
