"""`fedtwin research …`: fetch, verify, read and ask released models; get public data."""

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fedtwin.paper import data_folder, now, say, show_table
from fedtwin.research_drugs import add_drug_commands
from fedtwin.research_models import add_model_commands
from fedtwin.research_trial import add_trial_commands
from fedtwin.research_twins import add_twin_commands

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
def population(
    study: Annotated[str, typer.Argument(help="A population study whose release was fetched.")],
    out: Annotated[Path | None, typer.Option(help="Write the table there too, as CSV.")] = None,
) -> None:
    """The population values that a study learned, with their uncertainty.

    Example: fedtwin research population warfarin-dose
    """
    from fedtwin.auditing import write_file
    from fedtwin_research.bench import open_release
    from fedtwin_research.tables import population_csv

    model = open_release(study)
    values = model.population()
    rows = []
    for one in values:
        low, high = one.interval
        before = "" if one.known_before is None else f"{one.known_before:.4g}"
        numbers = [f"{one.mean:.4g}", f"{one.sd:.2g}", f"{low:.4g} to {high:.4g}"]
        rows.append([one.name, *numbers, before, one.unit])
    head = ["", "value", "standard error", "95 % interval", "known before", "unit"]
    show_table(model.card.title, head, rows)
    say(*model.cautions())
    if out is not None:
        write_file(out, population_csv(values).encode())
        say(f"{len(values)} values: {out}")


@app.command()
def predict(
    study: Annotated[str, typer.Argument(help="A study whose release was fetched.")],
    patients: Annotated[
        Path, typer.Argument(help="CSV file: the names that 'show' lists, then one patient a line.")
    ],
    out: Annotated[Path, typer.Option(help="Write the predictions there, as CSV.")],
    records: Annotated[
        Path | None,
        typer.Option(
            help="CSV file, for models that read records: patient (line in the first file, from 0),"
            " code, value, unit, days_before."
        ),
    ] = None,
    unit: Annotated[
        list[str] | None,
        typer.Option(help="COLUMN=UNIT, for a column in another unit than the contract's."),
    ] = None,
) -> None:
    """Predict for patients in a file, and say what the numbers are.

    Example: fedtwin research predict coronary-risk-5y patients.csv --out risks.csv
    --unit cholesterol=mmol/L
    """
    from fedtwin.auditing import write_file
    from fedtwin_research.bench import open_release
    from fedtwin_research.prediction import named
    from fedtwin_research.tables import prediction_table, read_patients, read_records

    model = open_release(study)
    found = model.predict(
        read_patients(patients, model.contract),
        units=_units(unit or []),
        records=None if records is None else read_records(records),
    )
    write_file(out, prediction_table(found).encode())
    say(*found.warnings)
    say(f"{len(found)} patients, {named(found.kind, found.unit)} of each: {out}")


def _units(given: list[str]) -> dict[str, str]:
    """Units by column.

    Raises:
        ConfigurationError: an option is no COLUMN=UNIT.
    """
    from fedtwin_protocol.errors import ConfigurationError

    for one in given:
        if not all(one.partition("=")):
            raise ConfigurationError(
                f"expected --unit COLUMN=UNIT, such as cholesterol=mmol/L, found {one!r}"
            )
    return {name: unit for name, _, unit in (one.partition("=") for one in given)}


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


@app.command()
def audit(
    study: Annotated[
        str, typer.Argument(metavar="RELEASE", help="A study in the library, or a folder of files.")
    ],
    trust: Annotated[
        Path | None, typer.Option(help="trust.json to verify a folder against.")
    ] = None,
    draft: Annotated[
        bool, typer.Option("--draft", help="The folder is a draft that nobody signed yet.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(help="Of all chance; the card's own if none is given.", min=0)
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the results there, for the card.")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="Write a page with plots there.")] = None,
) -> None:
    """Repeat the privacy audits of a release as far as that needs no hospital's data.

    Attacks the plan's mechanism on made-up patients: membership (LiRA), gradient inversion, a lower
    bound on epsilon; and prices the plan. Ends with status 1 where a check fails.

    Example: fedtwin research audit heart-disease-risk --page audits.html
    """
    from fedtwin.auditing import (
        as_audits,
        repeat,
        show_audits,
        stated_epsilon,
        unlike_the_card,
        write_file,
    )
    from fedtwin_protocol.card_audits import audit_file
    from fedtwin_research.audits.page import audit_page

    subject = _subject(study, trust, draft)
    plan, shown = subject.plan, subject.card.audits
    chosen = seed
    if chosen is None:
        chosen = next((one.seed for one in shown if one.by == "outside"), 1)
    repeated = repeat(plan, chosen)
    audits = as_audits(repeated.findings, "outside", now(), chosen)
    file = audit_file(plan, audits, subject.model_sha256)
    title = f"{plan.study} version {plan.version}, on made-up patients, seed {chosen}"
    passed = show_audits(title, audits)
    wrong = unlike_the_card(shown, audits, chosen)
    say(*(f"FAIL {line}" for line in wrong))
    say("the card holds no audits" if not shown else f"the card holds {len(shown)} audits")
    say("cannot be repeated here:", *(f"  {line}" for line in repeated.not_repeated))
    if json_file is not None:
        write_file(json_file, file.to_bytes())
    if page is not None:
        text = audit_page(file, repeated, stated_epsilon(plan), plan.privacy.delta)
        write_file(page, text.encode())
    if wrong or not passed:
        raise typer.Exit(1)


def _subject(study: str, trust: Path | None, draft: bool) -> Any:
    """The release or the draft that is audited."""
    from fedtwin_protocol.release import verify_release
    from fedtwin_research.audits.subject import subject_of_draft, subject_of_release
    from fedtwin_research.library import Library, default_folder, read_release, read_trust

    if draft:
        say("a draft: nobody has signed it")
        return subject_of_draft(read_release(Path(study)))
    if trust is None:
        return subject_of_release(Library(default_folder()).open(study))
    return subject_of_release(verify_release(read_release(Path(study)), read_trust(trust)))


add_drug_commands(app)
add_twin_commands(app)
add_trial_commands(app)
add_model_commands(app)

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
