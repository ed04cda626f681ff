"""`fedtwin server …`: the consortium's coordinator."""

import asyncio
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedtwin.paper import LogLevel, now, refuse_misplaced, say, show_table, start_log
from fedtwin.server_signing import DEFAULT_HOME, Folder, Keys, register

app = typer.Typer(rich_markup_mode=None)
register(app)


class MemberRole(StrEnum):
    """Who can be invited."""

    SITE = "site"
    RESEARCHER = "researcher"


@app.command()
def init(
    consortium: Annotated[str, typer.Option(help="Name, such as heart-north.")],
    address: Annotated[
        list[str], typer.Option(help="Host name or number sites reach it by; repeatable.")
    ],
    home: Folder = DEFAULT_HOME,
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8443,
    listen: Annotated[str, typer.Option(help="Interface to listen on.")] = "0.0.0.0",  # noqa: S104
    signer: Annotated[
        list[str] | None, typer.Option(help="Holder of a signing key; repeatable.")
    ] = None,
    threshold: Annotated[int, typer.Option(help="Signatures a plan or release needs.", min=1)] = 1,
    offline: Annotated[
        Path | None, typer.Option(help="Folder for the root and signing keys.")
    ] = None,
    certificate_hours: Annotated[
        float, typer.Option(help="Life of certificates.", min=0.0001, max=336)
    ] = 24,
) -> None:
    """Set up a consortium: certificate authority, signers, settings.

    Example: fedtwin server init --consortium heart-north --address fed.example.org --signer oslo
    """
    from pydantic import ValidationError

    from fedtwin_protocol.errors import ConfigurationError
    from fedtwin_protocol.signing import TrustRoot, load_signing_key
    from fedtwin_server.authority import create_authority
    from fedtwin_server.consortium import check_names, make_signer, write_settings
    from fedtwin_server.coordinator import CoordinatorSettings, Home
    from fedtwin_server.tuf_repository import TufRepository

    place = offline or home / "offline"
    if Home(folder=home).settings_file.exists():
        raise ConfigurationError(f"{home} holds a coordinator already")
    holders = signer or [consortium]
    check_names(consortium, holders, threshold)
    authority = create_authority(
        home, consortium=consortium, addresses=address, now=now(), root_folder=place
    )
    keys = tuple(make_signer(place / f"{holder}.key", holder) for holder in holders)
    try:
        settings = CoordinatorSettings(
            consortium=consortium,
            addresses=tuple(address),
            listen=f"{listen}:{port}",
            public=f"{address[0]}:{port}",
            trust=TrustRoot(consortium=consortium, keys=keys, threshold=threshold),
            certificate_hours=certificate_hours,
        )
    except ValidationError as error:
        reasons = "; ".join(str(item["msg"]) for item in error.errors())
        raise ConfigurationError(f"these settings do not fit together: {reasons}") from error
    signers = [load_signing_key(place / f"{holder}.key") for holder in holders]
    TufRepository(home).create(settings.trust, signers, now())
    write_settings(Home(folder=home), settings)
    say(
        f"the coordinator of {consortium} is set up in {home}",
        f"root fingerprint, to read out to sites: {authority.root_fingerprint}",
        f"the root key and the signers' keys lie in {place}: hand each signer theirs, and move the "
        "root key to a medium that is kept offline",
        "next: fedtwin server invite NAME, then fedtwin server run",
    )


@app.command()
def invite(
    name: Annotated[str, typer.Argument(help="The site's or researcher's name, for good.")],
    home: Folder = DEFAULT_HOME,
    role: Annotated[MemberRole, typer.Option(help="What it will be.")] = MemberRole.SITE,
    out: Annotated[Path | None, typer.Option(help="Where the invitation is written.")] = None,
    hours: Annotated[float, typer.Option(help="How long it may be used.", min=0.0001)] = 24,
) -> None:
    """Write a one-time invitation; hand the file over by a safe way.

    Example: fedtwin server invite st-olav --out st-olav.invitation
    """
    from fedtwin_protocol.invitation import write_invitation
    from fedtwin_server.authority import Authority
    from fedtwin_server.coordinator import Home
    from fedtwin_server.invitations import Guest, InvitationBook

    place = Home(folder=home)
    settings, store = place.settings(), place.store()
    guest = Guest(
        role=role.value, name=name, address=settings.public, lifetime=timedelta(hours=hours)
    )
    authority = Authority.load(home)
    invitation = InvitationBook(store.connection).create(guest, authority, settings.trust, now())
    path = out or Path(f"{name}.invitation")
    write_invitation(path, invitation)
    store.close()
    command = "client" if role is MemberRole.SITE else "research"
    say(
        f"{path} invites {role.value} {name}, once, until {invitation.expires:%Y-%m-%d %H:%M} UTC",
        f"root fingerprint, to read out by telephone: {invitation.root_fingerprint}",
        f"there: fedtwin {command} enrol --invitation {path.name}",
    )


@app.command()
def run(
    home: Folder = DEFAULT_HOME,
    log_level: Annotated[LogLevel, typer.Option(help="How much to write.")] = LogLevel.INFO,
) -> None:
    """Run the coordinator until stopped (Ctrl-C); it resumes studies where they were.

    Example: fedtwin server run --home /srv/fedtwin
    """
    from fedtwin_server.coordinator import Coordinator, Home
    from fedtwin_server.handshakes import translate_handshake_failures
    from fedtwin_server.open_files import take_the_hard_limit
    from fedtwin_server.sparing import refuse_sparingly

    place = Home(folder=home)
    place.settings()
    start_log(log_level)
    refuse_sparingly()
    take_the_hard_limit()
    translate_handshake_failures()
    asyncio.run(Coordinator(place).serve())


@app.command()
def sites(home: Folder = DEFAULT_HOME) -> None:
    """Who is a member, since when, and when last seen; what was noted about links.

    Example: fedtwin server sites
    """
    from fedtwin_server.coordinator import Home

    store = Home(folder=home).store()
    rows = []
    for role in ("site", "researcher"):
        for member in store.members(role):
            state = f"revoked {_short(member['revoked'])}" if member["revoked"] else "member"
            rows.append(
                [
                    str(member["name"]),
                    role,
                    state,
                    _short(member["enrolled"]),
                    _short(member["last_seen"]) or "never",
                    str(member["software"]),
                ]
            )
    show_table("", ["name", "role", "state", "enrolled", "last link", "software"], rows)
    for event in store.journal("")[-20:]:
        say(f"{_short(event.time)} {event.site or '-'}: {event.text}")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Whose certificates end now.")],
    home: Folder = DEFAULT_HOME,
    role: Annotated[MemberRole, typer.Option(help="What it is.")] = MemberRole.SITE,
) -> None:
    """Revoke a member; an open link is cut within a second.

    Example: fedtwin server revoke st-olav
    """
    from fedtwin_server.authority import Authority
    from fedtwin_server.coordinator import Home
    from fedtwin_server.revocation import IssuedBook

    place = Home(folder=home)
    store, moment = place.store(), now()
    book = IssuedBook(store.connection)
    count = book.revoke(role.value, name, moment)
    book.publish(Authority.load(home), moment)
    store.mark_revoked(role.value, name, moment)
    store.close()
    say(f"{role.value} {name} is revoked ({count} certificates); a new invitation admits it again")


@app.command()
def renew(
    offline: Annotated[Path, typer.Option(help="Folder with root.key, brought back for this.")],
    home: Folder = DEFAULT_HOME,
) -> None:
    """Renew the issuing CA with the root key, once a year; members' certificates stay valid.

    Stop the coordinator first. Example: fedtwin server renew --offline /media/offline
    """
    from fedtwin_server.authority import renew_issuing
    from fedtwin_server.coordinator import Home
    from fedtwin_server.revocation import IssuedBook

    place = Home(folder=home)
    store, moment = place.store(), now()
    authority = renew_issuing(home, offline, moment)
    IssuedBook(store.connection).publish(authority, moment)
    store.close()
    say(
        f"the issuing CA is renewed until {authority.not_after:%Y-%m-%d}; start the coordinator, "
        "and take the root key offline again"
    )


plan = typer.Typer(
    help="Plans, before they are signed.\n\nExample: fedtwin server plan check plan.yaml",
    rich_markup_mode=None,
)
app.add_typer(plan, name="plan", no_args_is_help=True)


@plan.command("check")
def plan_check(
    file: Annotated[Path, typer.Argument(help="The plan, YAML.")],
) -> None:
    """A plan in plain words, what it costs in privacy, and the noise that would do if it is short.

    Example: fedtwin server plan check plan.yaml
    """
    from fedtwin.plan_check import adds_up, cost_lines, cost_of
    from fedtwin_client.node.plain_words import as_text, describe
    from fedtwin_protocol.parameters import parameter_shapes
    from fedtwin_protocol.study import plan_from_yaml

    found = plan_from_yaml(file)
    if found.model.initial_sha256 is None:
        parameter_shapes(found)  # refuses a family that is not built in, or lacks its layers
    cost = cost_of(found)
    say(as_text(describe(found)), "COST", *cost_lines(found, cost))
    if not adds_up(found, cost):
        raise typer.Exit(1)


studies = typer.Typer(
    help="Studies: list them; add, show, stop.\n\nExample: fedtwin server studies",
    rich_markup_mode=None,
)
app.add_typer(studies, name="studies", invoke_without_command=True)


@studies.callback()
def studies_default(context: typer.Context, home: Folder = DEFAULT_HOME) -> None:
    """List the studies.

    Example: fedtwin server studies
    """
    if context.invoked_subcommand is not None:
        refuse_misplaced(context, "home")
        return
    from fedtwin_server.coordinator import Home
    from fedtwin_server.study_record import plan_of

    store = Home(folder=home).store()
    rows = []
    for record in store.studies():
        decisions = store.decisions(record.study)
        rows.append(
            [
                record.study,
                str(record.version),
                record.status,
                f"{len(store.rounds(record.study))}/{plan_of(record).training.rounds}",
                ", ".join(site for site, yes in decisions.items() if yes) or "none yet",
                record.reason,
            ]
        )
    show_table("", ["study", "version", "state", "rounds", "sites", "reason"], rows)


@studies.command("add")
def add(
    plan: Annotated[Path, typer.Argument(help="The plan, YAML.")],
    key: Keys,
    home: Folder = DEFAULT_HOME,
    initial: Annotated[Path | None, typer.Option(help="Initial parameters.")] = None,
) -> None:
    """Check, sign and open a study; sites see it when they next ask.

    Example: fedtwin server studies add plan.yaml --key oslo.key --key bergen.key
    """
    from fedtwin.plan_check import refuse_what_does_not_add_up
    from fedtwin_protocol.study import plan_from_yaml
    from fedtwin_server.consortium import add_study
    from fedtwin_server.coordinator import Home

    refuse_what_does_not_add_up(plan_from_yaml(plan))
    added = add_study(Home(folder=home), plan, key, initial, now())
    say(f"study {added.study} version {added.version} is open; plan hash {added.hash}")
    if added.sites.keys:
        say("signed with these sites' keys; a hospital reads its own in 'fedtwin client check':")
        say(*(f"  {site}: {public}" for site, public in sorted(added.sites.keys.items())))


@studies.command("show")
def show(
    study: Annotated[str, typer.Argument(help="Its name.")], home: Folder = DEFAULT_HOME
) -> None:
    """How a study stands: decisions, rounds, and its journal.

    Example: fedtwin server studies show heart-disease-risk
    """
    from fedtwin_server.coordinator import Home
    from fedtwin_server.study_record import plan_of

    store = Home(folder=home).store()
    record = store.study(study)
    plan = plan_of(record)
    why = f", {record.reason}" if record.reason else ""
    say(f"{plan.title} ({record.study} version {record.version}): {record.status}{why}")
    decisions = store.decisions(study)
    rows = [[site, "takes part" if yes else "does not"] for site, yes in decisions.items()]
    show_table("Decisions", ["site", "decision"], rows)
    rounds = [
        [str(item.round), ", ".join(item.sites), f"{item.seconds:.3f}"]
        for item in store.rounds(study)
    ]
    show_table("Rounds", ["round", "sites", "seconds"], rounds)
    for event in store.journal(study):
        say(f"{_short(event.time)} {event.site or '-'}: {event.text}")


@studies.command("stop")
def stop(
    study: Annotated[str, typer.Argument(help="Its name.")], home: Folder = DEFAULT_HOME
) -> None:
    """Stop a study for good; sites give back what was reserved and not used.

    Example: fedtwin server studies stop heart-disease-risk
    """
    from fedtwin_protocol.errors import ConfigurationError
    from fedtwin_server.coordinator import Home
    from fedtwin_server.store import LIVE_STATUSES

    store = Home(folder=home).store()
    record = store.study(study)
    if record.status not in LIVE_STATUSES:
        raise ConfigurationError(f"study {study} is {record.status} already")
    store.set_status(study, "stopped", "stopped by the consortium", now())
    say(f"study {study} is stopped")


def _short(time: str | None) -> str:
    return (time or "")[:16].replace("T", " ")
