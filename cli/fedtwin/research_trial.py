"""`fedtwin research trial` and `sample-size`: in-silico trials; how large a real one must be."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtwin.paper import console, say, show_table

if TYPE_CHECKING:
    from fedtwin_research.trials.running import Finished

_ROUNDING = 1e-9


def add_trial_commands(app: typer.Typer) -> None:
    """Put the commands of this module below `fedtwin research`."""
    app.command("trial")(trial)
    app.command("sample-size")(sample_size)


def trial(
    plan: Annotated[
        Path | None, typer.Argument(help="The trial's plan, YAML; docs/trials.md explains it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report; the trial's name if none is given.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; as many as there are cores if not given.")
    ] = None,
    cards: Annotated[Path | None, typer.Option(help="Folder with model cards of your own.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether the plan adds up.")
    ] = False,
    example: Annotated[
        str | None,
        typer.Option(
            help="Write a plan with comments and end: tacrolimus, vancomycin or warfarin."
        ),
    ] = None,
) -> None:
    """Try drugs and ways of dosing on virtual patients, and write a report with plots and tables.

    The same plan gives the same files, byte for byte, whatever the number of workers.

    Example: fedtwin research trial tacrolimus.yaml --out tacrolimus
    """
    from fedtwin_protocol.errors import ConfigurationError

    if example is not None:
        _write_example(example, plan or Path(f"{example}.yaml"))
        return
    if plan is None:
        raise ConfigurationError(
            "name a trial's plan, or write one with 'fedtwin research trial --example tacrolimus'"
        )
    _torch_or_say_how()
    from fedtwin_research.trials.models import cards_of, laboratory_for
    from fedtwin_research.trials.reading import read_plan
    from fedtwin_research.trials.running import check_trial, pieces_of, run_trial
    from fedtwin_research.trials.running import local_processes as processes
    from fedtwin_research.trials.writing import check_folder, trial_files, write_folder

    read = read_plan(plan)
    laboratory = laboratory_for(read, cards)
    cautions = check_trial(read.plan, laboratory)
    say(*(f"caution: {line}" for line in cautions))
    if check:
        say(f"{plan} adds up: {read.plan.replicates} trials of {read.plan.patients} patients, "
            f"plan {read.plan.digest}")  # fmt: skip
        return
    folder = out or Path(read.plan.name)
    check_folder(folder)
    count = workers or os.cpu_count() or 1
    with _bar(pieces_of(read.plan)) as done, processes(count) as executor:
        finished = run_trial(read.plan, laboratory, executor, done)
    write_folder(folder, trial_files(read, finished, cards_of(read.plan, cards)))
    _show(finished)
    say(f"the report is {folder / 'report.html'}; tables, plan and manifest lie beside it")


def sample_size(
    difference: Annotated[float, typer.Option(help="Of means or shares, to be found.")],
    sd: Annotated[float, typer.Option(help="Of the outcome within an arm.")],
    correlation: Annotated[
        float, typer.Option(help="Of the prognostic score with the outcome; 0: no score.")
    ] = 0.0,
    power: Annotated[float, typer.Option(help="Chance of finding the difference.")] = 0.9,
    alpha: Annotated[float, typer.Option(help="Two-sided error of the first kind.")] = 0.05,
    treated_per_control: Annotated[
        float, typer.Option(help="Allocation: 2 is two treated for each control.")
    ] = 1.0,
    dropout: Annotated[float, typer.Option(help="Share without an outcome.")] = 0.0,
    sd_inflation: Annotated[float, typer.Option(help="Share by which sd is taken larger.")] = 0.0,
    correlation_deflation: Annotated[
        float, typer.Option(help="Share by which the correlation is taken smaller.")
    ] = 0.0,
) -> None:
    """How many patients a trial needs, without a prognostic score and with better and better ones.

    Example: fedtwin research sample-size --difference 0.3 --sd 1 --correlation 0.5
    """
    from fedtwin_protocol.errors import ConfigurationError
    from fedtwin_twins.trials.sample_size import Question, sample_size_panel

    steps = sorted({0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, correlation})
    try:
        question = Question(
            difference=difference,
            sd=sd,
            alpha=alpha,
            power=power,
            treated_per_control=treated_per_control,
            dropout=dropout,
            sd_inflation=sd_inflation,
            correlation_deflation=correlation_deflation,
        )
        sizes = sample_size_panel(question, steps)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    rows = [
        [
            f"{one.correlation:g}",
            str(ceil(one.treated - _ROUNDING)),
            str(ceil(one.control - _ROUNDING)),
            str(one.total),
            f"{100 * one.saving:.0f}%",
            "asked for" if one.correlation == correlation else "",
        ]
        for one in sizes
    ]
    heads = ["correlation", "treated", "control", "together", "saved", ""]
    show_table("Patients to be randomised", heads, rows)
    say("a score saves patients in both arms; it never stands in for a control patient")


def _write_example(name: str, path: Path) -> None:
    from fedtwin.auditing import write_file
    from fedtwin_protocol.errors import ConfigurationError

    folder = files("fedtwin_research") / "trials" / "examples"
    there = sorted(one.name.removesuffix(".yaml") for one in folder.iterdir())
    if name not in there:
        raise ConfigurationError(f"there is no example {name!r}: choose {' or '.join(there)}")
    if path.exists():
        raise ConfigurationError(f"{path} is there already: name another file after 'trial'")
    write_file(path, (folder / f"{name}.yaml").read_bytes())
    say(f"written: {path}. Next: fedtwin research trial {path}")


def _torch_or_say_how() -> None:
    from importlib.util import find_spec

    from fedtwin_protocol.errors import ConfigurationError

    if find_spec("torch") is None:
        raise ConfigurationError(
            "trials compute with torch, which is not installed here: "
            "pip install --constraint constraints.txt 'fedtwin[trials]'"
        )


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """Trials done, and how long it will take, where somebody watches."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("trials"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("trials", total=total)
        yield lambda more: progress.advance(task, more)


def _show(finished: "Finished") -> None:
    plan = finished.plan
    primary = plan.endpoints[0]
    arms = {row.arm: row for row in finished.result.arms if row.endpoint == primary.name}
    effects = {
        (one.arm, one.adjusted): one
        for one in finished.result.effects
        if one.endpoint == primary.name
    }
    rows = []
    for arm in plan.arms:
        found, plain = arms[arm.name], effects.get((arm.name, False))
        power = [
            "-" if one is None else f"{100 * one.power:.0f}"
            for one in (plain, effects.get((arm.name, True)))
        ]
        rows.append(
            [
                arm.label,
                f"{found.mean:.3g}",
                "control" if plain is None else f"{plain.effect.mean:+.3g}",
                "" if plain is None else f"{plain.effect.monte_carlo_error:.2g}",
                *power,
            ]
        )
    heads = ["arm", "mean", "difference", "MC error", "power %", "adjusted power %"]
    show_table(f"{primary.label}; {plan.replicates} trials", heads, rows)
