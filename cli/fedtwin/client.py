"""`fedtwin client …`: a hospital's node."""

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from fedtwin import client_ledger
from fedtwin.client_live import listen
from fedtwin.client_patients import consent, keys
from fedtwin.client_readiness import readiness
from fedtwin.client_records import records
from fedtwin.paper import (
    LogLevel,
    data_folder,
    now,
    refuse_misplaced,
    say,
    show_table,
    start_log,
)

app = typer.Typer(rich_markup_mode=None)
app.add_typer(client_ledger.app, name="ledger")
Folder = Annotated[
    Path, typer.Option("--home", envvar="FEDTWIN_CLIENT_HOME", help="The node's folder.")
]
DEFAULT_HOME = data_folder("client")


@app.command()
def enrol(
    invitation: Annotated[Path, typer.Option(help="The invitation file from the consortium.")],
    home: Folder = DEFAULT_HOME,
    address: Annotated[str | None, typer.Option(help="host:port, if another is dialled.")] = None,
    proxy: Annotated[str | None, typer.Option(help="http://host:port of a proxy.")] = None,
    key_file: Annotated[
        str | None, typer.Option(help="Where the site key goes; beside the folder if not said.")
    ] = None,
) -> None:
    """Become a member with an invitation; the key is made here and stays here.

    Example: fedtwin client enrol --invitation st-olav.invitation
    """
    from fedtwin_client.assemble import enrol_node

    say(*enrol_node(home, invitation, address, proxy, now(), key_file))


@app.command()
def run(
    home: Folder = DEFAULT_HOME,
    log_level: Annotated[LogLevel, typer.Option(help="How much to write.")] = LogLevel.INFO,
) -> None:
    """Run the node until stopped (Ctrl-C). It dials out and never listens.

    Example: fedtwin client run --home /srv/fedtwin-node
    """
    from fedtwin_client.node.agent import Agent
    from fedtwin_client.node.home import NodeHome

    start_log(log_level)
    asyncio.run(Agent(NodeHome(folder=home), now).run())


app.add_typer(records, name="records", no_args_is_help=True)
app.add_typer(consent, name="consent", invoke_without_command=True)
app.add_typer(keys, name="keys", invoke_without_command=True)
app.command("readiness")(readiness)
app.command("listen")(listen)


@app.command()
def check(
    home: Folder = DEFAULT_HOME,
    network: Annotated[
        bool, typer.Option("--network", help="Check the way out, hop by hop.")
    ] = False,
    study: Annotated[str | None, typer.Option(help="Check the cohort of an offered study.")] = None,
    privacy: Annotated[
        bool,
        typer.Option("--privacy", help="Check clip, noise and independence, on made-up patients."),
    ] = False,
    plan: Annotated[
        Path | None, typer.Option(help="With --privacy: a plan, YAML or plan.json of a draft.")
    ] = None,
    seed: Annotated[int, typer.Option(help="With --privacy: of the made-up patients.", min=0)] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="With --privacy: write results for the card.")
    ] = None,
) -> None:
    """Check this node: identity, policy, ledger, records; with --network, the way out.

    With --privacy and a study or a plan: whether what this node's software would send has the
    noise, the clip and the independence that the plan claims. No record is read.

    Example: fedtwin client check --privacy --study heart-disease-risk
    """
    from fedtwin_client.assemble import check_node, check_study
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.node.network import check_network

    place = NodeHome(folder=home)
    if privacy:
        from fedtwin.auditing import check_mechanism

        raise typer.Exit(0 if check_mechanism(place, study, plan, seed, json_file) else 1)
    if network:
        faults = 0
        for step in check_network(place, now()):
            say(f"{'ok  ' if step.ok else 'FAIL'} {step.name}: {step.text}")
            faults += not step.ok
        raise typer.Exit(1 if faults else 0)
    if study:
        say(*check_study(place, study, now()))
        return
    lines = check_node(place, now())
    say(*lines)
    if any(line.startswith("FAIL") for line in lines):
        raise typer.Exit(1)


@app.command()
def policy(
    home: Folder = DEFAULT_HOME,
    default: Annotated[bool, typer.Option("--default", help="Print a new policy file.")] = False,
) -> None:
    """Show what this hospital allows, checked; edit policy.yaml in the node's folder.

    Example: fedtwin client policy
    """
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.node.policy import default_policy_text, load_policy

    if default:
        say(default_policy_text())
        return
    path = NodeHome(folder=home).policy_file
    found = load_policy(path)
    say(f"{path} is in order:")
    for name, value in found.model_dump(mode="json").items():
        say(f"  {name}: {value}")


studies = typer.Typer(
    help="Studies offered to this hospital: list them; show, accept, decline.\n\n"
    "Example: fedtwin client studies",
    rich_markup_mode=None,
)
app.add_typer(studies, name="studies", invoke_without_command=True)


@studies.callback()
def studies_default(context: typer.Context, home: Folder = DEFAULT_HOME) -> None:
    """List the studies that were offered, and what was decided.

    Example: fedtwin client studies
    """
    if context.invoked_subcommand is not None:
        refuse_misplaced(context, "home")
        return
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.node.log_watch import read_watched
    from fedtwin_client.node.studies import KnownStudies

    place = NodeHome(folder=home)
    place.settings()
    rows = [
        [
            item.study,
            str(item.version),
            item.decision,
            item.by_person or "policy",
            item.state,
            item.reasons,
        ]
        for item in KnownStudies(place.studies_file).all()
    ]
    show_table("", ["study", "version", "decision", "by", "state", "reasons"], rows)
    alarm = read_watched(place).alarm
    if alarm is not None:
        say(f"ALARM: this node takes part in nothing: {alarm.text}; see 'fedtwin client log'")


@studies.command("show")
def studies_show(
    study: Annotated[str, typer.Argument(help="Its name.")], home: Folder = DEFAULT_HOME
) -> None:
    """A study in plain words: who asks what, what is read, what leaves.

    Example: fedtwin client studies show heart-disease-risk
    """
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.node.plain_words import as_text, describe
    from fedtwin_client.node.studies import KnownStudies

    place = NodeHome(folder=home)
    place.settings()
    known = KnownStudies(place.studies_file).by_name(study)
    say(as_text(describe(known.plan)), f"decision: {known.decision}", known.reasons)


@studies.command("accept")
def studies_accept(
    study: Annotated[str, typer.Argument(help="Its name.")],
    by: Annotated[str, typer.Option(help="Your name; it is written down.")],
    home: Folder = DEFAULT_HOME,
) -> None:
    """Accept a study that the policy holds for a person; the running node goes on at once.

    Example: fedtwin client studies accept heart-disease-risk --by 'Dr A. Berg'
    """
    from fedtwin_client.assemble import decide_by_person

    say(decide_by_person(home, study, by, True, now()))


@studies.command("decline")
def studies_decline(
    study: Annotated[str, typer.Argument(help="Its name.")],
    by: Annotated[str, typer.Option(help="Your name; it is written down.")],
    home: Folder = DEFAULT_HOME,
) -> None:
    """Decline a study, or leave one that was accepted, from the next message on.

    Example: fedtwin client studies decline heart-disease-risk --by 'Dr A. Berg'
    """
    from fedtwin_client.assemble import decide_by_person

    say(decide_by_person(home, study, by, False, now()))


@app.command("log")
def public_log(
    home: Folder = DEFAULT_HOME,
    forget_by: Annotated[
        str | None,
        typer.Option(help="Your name: you have asked the others; drop what is held and go on."),
    ] = None,
) -> None:
    """The consortium's public log as this node holds it, what other sites hold, and any alarm.

    Example: fedtwin client log
    """
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.node.log_watch import describe_log, forget

    place = NodeHome(folder=home)
    place.settings()
    if forget_by:
        forget(place, forget_by, now())
    lines = describe_log(place)
    say(*lines)
    if any(line.startswith("ALARM") for line in lines):
        raise typer.Exit(1)


@app.command()
def left(
    home: Folder = DEFAULT_HOME,
    since: Annotated[str | None, typer.Option(help="Only from then on, ISO date.")] = None,
) -> None:
    """What left this hospital, message by message, with kinds and bytes.

    Example: fedtwin client left --since 2026-11-01
    """
    from datetime import UTC

    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.node.outbox import Outbox
    from fedtwin_protocol.errors import ConfigurationError

    place = NodeHome(folder=home)
    place.settings()
    try:
        start = datetime.fromisoformat(since).astimezone(UTC) if since else None
    except ValueError as error:
        raise ConfigurationError(f"expected a date such as 2026-11-01, got {since}") from error
    with Outbox(place.outbox_file) as box:
        found = box.left(start)
    rows = [
        [
            f"{item.time:%Y-%m-%d %H:%M:%S}",
            item.kind,
            item.study,
            "" if item.round is None else str(item.round),
            str(item.messages),
            str(item.bytes),
            item.held,
        ]
        for item in found.departures
    ]
    show_table("", ["time", "kind", "study", "round", "messages", "bytes", "what it held"], rows)
    say(f"{found.messages} messages, {found.bytes} bytes")


@app.command()
def report(
    study: Annotated[str, typer.Argument(help="A released study that this node took part in.")],
    home: Folder = DEFAULT_HOME,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The released model on this hospital's own patients, before and after recalibration.

    Beside it stands the mean of the training patients, which is what needs no model. Nothing of it
    leaves. Example: fedtwin client report heart-disease-risk
    """
    from fedtwin_client.assemble import report_release

    found = asyncio.run(report_release(home, study, now()))
    if as_json:
        say(json.dumps(found))
        return
    rows = [
        [when.replace("_", " "), *(_figure(found[when][key]) for key in found["before"])]
        for when in ("before", "after", "no_model")
    ]
    unit = f", in {found['unit']}" if found["unit"] else ""
    show_table(
        f"{study}: {found['held_out_patients']} held-out patients, local recalibration{unit}",
        ["", *(key.replace("_", " ") for key in found["before"])],
        rows,
    )
    if "site_shift" in found:
        _say_site_shift(found["site_shift"], found["unit"])


def _say_site_shift(found: dict[str, Any], unit: str) -> None:
    """By how much this hospital's patients differ, and how much hospitals do."""
    scale = {"none": unit, "square_root": f"sqrt({unit})", "logarithm": f"log({unit})"}
    say(
        f"this hospital's own shift: {found['mean']:+.3g} (sd {found['sd']:.2g}) "
        f"{scale[found['scale']]}; between hospitals the sd is {found['sd_between_sites']:.2g}, "
        f"between patients of one {found['sd_between_patients']:.2g}"
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}".rstrip("0").rstrip(".")
