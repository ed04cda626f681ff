"""`fedtwin client readiness`: how fit the hospital's records are for a study."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fedtwin.client_patients import DEFAULT_HOME, Folder
from fedtwin.paper import console, now, say, show_table

if TYPE_CHECKING:
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.readiness_desk import Look
    from fedtwin_protocol.study import StudyPlan


def readiness(
    study: Annotated[str, typer.Argument(help="An offered study's name, or a plan's file.")],
    home: Folder = DEFAULT_HOME,
    last: Annotated[bool, typer.Option("--last", help="Show the last report again.")] = False,
    reference: Annotated[
        Path | None, typer.Option(help="Quantiles of the consortium to compare with, JSON.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page with plots.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write JSON.")] = None,
    dqd: Annotated[
        Path | None, typer.Option(help="Also write it as OHDSI's DataQualityDashboard does.")
    ] = None,
    rows: Annotated[
        str | None, typer.Option(help="List the rows of this feature that a gate counts.")
    ] = None,
    gate: Annotated[
        str, typer.Option(help="With --rows: implausible, unknown_unit, coverage, null …")
    ] = "implausible",
    most: Annotated[int, typer.Option(help="With --rows: at most so many.", min=1)] = 100,
    allow: Annotated[str | None, typer.Option(help="Use this feature in spite of red.")] = None,
    block: Annotated[str | None, typer.Option(help="Count this feature as missing.")] = None,
    judge: Annotated[str | None, typer.Option(help="Leave it to the gates again.")] = None,
    because: Annotated[str, typer.Option(help="Why; it is written down.")] = "",
    by: Annotated[str, typer.Option(help="Your name; it is written down.")] = "",
    share: Annotated[
        Path | None, typer.Option(help="Write a noised version for others; charged first.")
    ] = None,
    epsilon: Annotated[float, typer.Option(help="With --share: what each patient pays.")] = 0.5,
) -> None:
    """Report how fit the records are for a study; a red feature counts as missing here.

    Counts are kept, and thresholds (readiness.yaml in the node's folder) applied when looking.
    Nothing leaves but by --share.

    Example: fedtwin client readiness heart-disease-risk --html readiness.html
    """
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.readiness_desk import find_plan

    place = NodeHome(folder=home)
    plan = find_plan(place, study)
    words: dict[Literal["allow", "block", "judge"], str | None] = {
        "allow": allow,
        "block": block,
        "judge": judge,
    }
    if any(words.values()):
        _speak(place, plan, words, because, by)
    elif rows:
        _list_rows(place, plan, rows, gate, most)
    elif share:
        _share(place, plan, epsilon, share)
    else:
        found = _report(place, plan, reference, again=not last)
        _write(found, html, json_file, dqd)


def _speak(
    place: "NodeHome",
    plan: "StudyPlan",
    words: Mapping[Literal["allow", "block", "judge"], str | None],
    because: str,
    by: str,
) -> None:
    from fedtwin_client.readiness_desk import speak

    for verdict, feature in words.items():
        if feature:
            say(speak(place, plan, feature, verdict, because, by, now()))
    say("a study under way takes it up with its next task")


def _list_rows(place: "NodeHome", plan: "StudyPlan", feature: str, gate: str, most: int) -> None:
    from fedtwin_client.readiness.rows import failing_rows
    from fedtwin_client.store.timeline import Timeline

    found, number = failing_rows(Timeline.open(place.records), plan, now(), feature, gate, most)
    cells = [
        [str(one.subject_id), _time(one.time), one.value, one.unit, one.source] for one in found
    ]
    if cells:
        show_table("", ["pseudonym", "time (UTC)", "value", "unit", "source"], cells)
    say(f"{number:,} in all of feature '{feature}', gate '{gate}'; {len(cells):,} are shown")


def _time(time: datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%d %H:%M:%S}"


def _share(place: "NodeHome", plan: "StudyPlan", epsilon: float, path: Path) -> None:
    from fedtwin_client.readiness_desk import share

    with console.status("counting"):
        charged, entry = share(place, plan, epsilon, now(), path)
    say(
        f"{path} may leave the hospital; nothing was sent",
        f"each patient in it has paid epsilon {charged:.3g} (entry {entry} of the ledger)",
    )


def _report(place: "NodeHome", plan: "StudyPlan", reference: Path | None, *, again: bool) -> "Look":
    from fedtwin_client.readiness_desk import keep, look
    from fedtwin_protocol.errors import ConfigurationError

    if again:
        from fedtwin_client.readiness.measures import measure
        from fedtwin_client.readiness.reference import read_reference
        from fedtwin_client.store.timeline import Timeline

        known = None if reference is None else read_reference(reference, plan.features)
        with console.status("counting") as status:
            timeline = Timeline.open(place.records)
            report = measure(
                timeline, plan, now(), known, lambda what: status.update(f"counting: {what}")
            )
        keep(place, report)
    found = look(place, plan)
    if found is None:
        raise ConfigurationError(
            f"no readiness report was made for this plan of {plan.study}: leave --last out"
        )
    return found


def _write(found: "Look", html: Path | None, json_file: Path | None, dqd: Path | None) -> None:
    import json

    from fedtwin.auditing import write_file
    from fedtwin_client.readiness.dqd import dqd_values
    from fedtwin_client.readiness.page import readiness_page
    from fedtwin_client.readiness.words import as_values, lines

    parts = (found.report, found.findings, found.blocks, found.words)
    say(*lines(*parts))
    if html:
        write_file(html, readiness_page(*parts).encode())
    if json_file:
        write_file(json_file, json.dumps(as_values(*parts), indent=2).encode())
    if dqd:
        write_file(dqd, json.dumps(dqd_values(found.report, found.findings), indent=2).encode())
    written = [str(path) for path in (html, json_file, dqd) if path]
    if written:
        say(f"written: {', '.join(written)}; it speaks of this hospital, keep it here")
