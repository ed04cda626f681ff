"""`fedtwin <party> …`: one door for everybody; a party's commands load when they are called for."""

import os
import sys
from importlib import import_module

import typer

from fedtwin_protocol.errors import FedtwinError

PARTIES = {
    "server": ("fedtwin.server", "The consortium's coordinator: members, studies, releases."),
    "client": ("fedtwin.client", "A hospital's node: records, policy, studies, ledger."),
    "research": ("fedtwin.research", "Researchers: fetch, verify and use released models."),
    "demo": (
        "fedtwin.demo.command",
        "Four hospitals, a coordinator and a researcher, here and now.",
    ),
}


def build(arguments: list[str]) -> typer.Typer:
    """The command tree; only the party that is called for is imported."""
    app = typer.Typer(
        name="fedtwin",
        help="Federated digital twins for hospitals. Start with: fedtwin demo",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    wanted = next((word for word in arguments if not word.startswith("-")), "")
    for name, (module, text) in PARTIES.items():
        party = import_module(module).app if name == wanted else typer.Typer()
        if name != wanted:
            party.callback()(_nothing)
        app.add_typer(party, name=name, help=text, no_args_is_help=True)
    return app


def _nothing() -> None:
    """Stands for a party that was not called."""


def main() -> None:
    """Entry point: a mistake ends with one sentence and status 2, never with a traceback."""
    try:
        build(sys.argv[1:])()
    except FedtwinError as error:
        sys.stderr.write(f"fedtwin: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("fedtwin: stopped\n")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)


if __name__ == "__main__":
    main()
