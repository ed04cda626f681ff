"""`fedtwin client ledger …`: what patients have paid, for an auditor, and what it means."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fedtwin.paper import data_folder, now, say

app = typer.Typer(rich_markup_mode=None, invoke_without_command=True)
Folder = Annotated[
    Path, typer.Option("--home", envvar="FEDTWIN_CLIENT_HOME", help="The node's folder.")
]
DEFAULT_HOME = data_folder("client")


@app.callback()
def ledger(
    context: typer.Context,
    home: Folder = DEFAULT_HOME,
    exact: Annotated[bool, typer.Option(help="Also the PLD figures (a second).")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    confirm_clock: Annotated[
        str | None, typer.Option(help="Your name: this machine's clock is right again.")
    ] = None,
) -> None:
    """The privacy ledger: what was spent and reserved, by study and by patient; it is verified.

    Example: fedtwin client ledger
    """
    if context.invoked_subcommand is not None:
        return
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.node.ledger import Ledger
    from fedtwin_client.node.policy import load_policy
    from fedtwin_client.training.accounting import epsilon_of

    place = NodeHome(folder=home)
    place.settings()
    with Ledger(place.ledger_file) as book:
        if confirm_clock:
            book.accept_clock(confirm_clock, now())
        limits = load_policy(place.policy_file).limits
        statement = book.statement(limits, epsilon_of if exact else None)
    if as_json:
        say(json.dumps(statement.to_values(), indent=2))
    else:
        say(*statement.lines())


@app.command("explain")
def explain_study(
    study: Annotated[str, typer.Argument(help="A study that this hospital accepted.")],
    home: Folder = DEFAULT_HOME,
) -> None:
    """What an attacker could learn at most from what a study releases, in plain words.

    Example: fedtwin client ledger explain heart-disease-risk
    """
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.node.ledger import Ledger
    from fedtwin_client.node.ledger_explain import explain, explain_sharing
    from fedtwin_client.node.studies import KnownStudies
    from fedtwin_client.training.accounting import deltas_of, epsilon_of
    from fedtwin_protocol.errors import ConfigurationError

    place = NodeHome(folder=home)
    place.settings()
    with Ledger(place.ledger_file) as book:
        account = book.account(study)
    if {item.mechanism.kind for item in account.reservation.allotments} == {"readiness"}:
        say(*explain_sharing(account))
        return
    studies = KnownStudies(place.studies_file)
    known = studies.by_hash(account.reservation.plan_hash)
    studies.close()
    if known is None:
        raise ConfigurationError(
            f"the ledger knows study {study}, but its plan is not in {place.studies_file}: restore "
            "both from the same backup"
        )
    say(*explain(known.plan, account, epsilon_of, deltas_of))
