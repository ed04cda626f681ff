"""`fedtwin research …`: fetch, verify and read released models; get public data."""

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fedtwin.paper import data_folder, now, say, show_table

app = typer.Typer(rich_markup_mode=None)
Home = Annotated[
    Path,
    typer.Option(
        "--home",
        envvar="FEDTWIN_RESEARCH_HOME",
        help="Folder of the researcher's identity and settings.",
    ),
]
DEFAULT_HOME = data_folder("research")


@app.command()
def enrol(
    invitation: Annotated[Path, typer.Option(help="The invitation file from the consortium.")],
    home: Home = DEFAULT_HOME,
    address: Annotated[str | None, typer.Option(help="host:port, if another is dialled.")] = None,
    proxy: Annotated[str | None, typer.Option(help="http://host:port of a proxy.")] = None,
) -> None:
    """Become a member with an invitation.

    Example: fedtwin research enrol --invitation ada.invitation
    """
    from fedtwin_protocol.canonical import canonical_bytes
    from fedtwin_protocol.credentials import check_writable, write_atomically
    from fedtwin_protocol.enrolment import enrol as spend
    from fedtwin_protocol.errors import ConfigurationError
    from fedtwin_protocol.invitation import read_invitation
    from fedtwin_research.library import Library, default_folder

    found = read_invitation(invitation, now())
    if found.role != "researcher":
        raise ConfigurationError(f"{invitation} invites a {found.role}: use 'fedtwin client enrol'")
    say(f"root fingerprint, to compare by telephone: {found.root_fingerprint}")
    library = Library(default_folder())
    check_writable(home / "identity")  # before the invitation is spent
    library.check_pin(found.trust)
    asyncio.run(spend(found, home / "identity", address, proxy))
    library.pin(found.trust)
    coordinator = address or found.address
    settings = {"consortium": found.consortium, "coordinator": coordinator, "proxy": proxy}
    write_atomically(home / "research.json", canonical_bytes(settings), mode=0o644)
    say(f"{found.name} is enrolled in {found.consortium}. Next: fedtwin research fetch")


@app.command()
def fetch(
    study: Annotated[str | None, typer.Argument(help="The study; without it, a list.")] = None,
    home: Home = DEFAULT_HOME,
    version: Annotated[int, typer.Option(help="Version of the plan; 0 is the newest.")] = 0,
) -> None:
    """Fetch and verify a release, or list those there are.

    Example: fedtwin research fetch heart-disease-risk
    """
    from fedtwin.renewing import renewed
    from fedtwin_protocol.credentials import load_credentials
    from fedtwin_protocol.fetching import Source, list_releases
    from fedtwin_research.chain import fetch_study
    from fedtwin_research.library import Library, default_folder

    settings = _settings(home)
    source = Source(
        address=str(settings["coordinator"]),
        credentials=load_credentials(home / "identity"),
        proxy=settings.get("proxy"),
    )
    source.credentials.check(now())
    if now() >= source.credentials.renew_at:
        source = asyncio.run(renewed(source, home / "identity"))
    if study is None:
        entries = asyncio.run(list_releases(source))
        rows = [[entry.study, str(entry.version), entry.created] for entry in entries]
        show_table("Releases", ["study", "version", "created"], rows)
        return
    release = fetch_study(
        Library(default_folder()), source, settings["consortium"], (study, version), now()
    )
    say(
        f"{study} version {release.statement.version} of {release.statement.created:%Y-%m-%d %H:%M}"
        f" is verified and in your library. Next: fedtwin research show {study}"
    )


def _settings(home: Path) -> dict[str, Any]:
    """What enrolment wrote down.

    Raises:
        ConfigurationError: nobody is enrolled here, or the file is damaged.
    """
    from fedtwin_protocol.errors import ConfigurationError

    path = home / "research.json"
    try:
        settings = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"no researcher is enrolled in {home}: run 'fedtwin research enrol' first"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be used ({error}): enrol again") from error
    if not isinstance(settings, dict) or not {"coordinator", "consortium"} <= set(settings):
        raise ConfigurationError(f"{path} lacks the coordinator or the consortium: enrol again")
    return settings


@app.command()
def show(
    study: Annotated[str, typer.Argument(help="A study whose release was fetched.")],
) -> None:
    """What a released model is, what it was learned from, and how to use it.

    Example: fedtwin research show heart-disease-risk
    """
    from fedtwin_research.bench import open_release

    model = open_release(study)
    say(*model.explain())


@app.command()
def verify(
    study: Annotated[str, typer.Argument(help="A study in the library, or a folder of files.")],
    trust: Annotated[
        Path | None, typer.Option(help="trust.json to verify a folder against.")
    ] = None,
) -> None:
    """Verify a release and tell the whole chain behind it; no network is needed.

    Example: fedtwin research verify heart-disease-risk
    """
    from fedtwin_research.chain import tell_chain
    from fedtwin_research.library import Library, default_folder, read_trust

    if trust is None:
        library = Library(default_folder())
        folder = library.place(study)
        library.open(study)
        pinned = library.trust(library.consortium_of(study))
    else:
        folder, pinned = Path(study), read_trust(trust)
    say(*tell_chain(folder, pinned, now()))


data = typer.Typer(
    help="Public data sets, by URL with checksums.\n\nExample: fedtwin research data heart-disease",
    rich_markup_mode=None,
)
app.add_typer(data, name="data", no_args_is_help=True)


@data.command("heart-disease")
def heart_disease(
    folder: Annotated[Path, typer.Option(help="Where the files go.")] = Path("heart-disease"),
    copies: Annotated[
        Path | None, typer.Option("--from", help="Take copies that are here already.")
    ] = None,
) -> None:
    """The UCI heart disease set: four hospitals, 920 patients, CC BY 4.0.

    Example: fedtwin research data heart-disease --folder heart-disease
    """
    from fedtwin_research.datasets import NOTICE, fetch_heart_disease, open_address

    for path in fetch_heart_disease(folder, open_address, copies):
        say(f"verified: {path}")
    say(NOTICE)
