"""`fedtwin <party> …`: one door for everybody; a party's commands load when they are called for."""

import os
import sys
from importlib import import_module
from typing import Any

import typer
import typer.core
import typer.main

from fedtwin_protocol.errors import FedtwinError

# The sums of a round are short; a second thread of the linear algebra would only wait for them,
# and waits by spinning. Torch has threads of its own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


class _Argument(typer.core.TyperArgument):
    """An argument that keeps its explanation: click from 8.4 on clears what typer 0.20 has set."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.help = given.get("help")


typer.main.TyperArgument = _Argument  # type: ignore[attr-defined]  # imported there
typer.core.HAS_RICH = False  # with it, typer writes help as "\[required]" where markup is off

PARTIES = {
    "server": (
        "fedtwin.server",
        "The consortium's coordinator: members, studies, releases.\n\n"
        "Example: fedtwin server studies",
    ),
    "client": (
        "fedtwin.client",
        "A hospital's node: records, policy, studies, ledger.\n\n"
        "Example: fedtwin client check --network",
    ),
    "research": (
        "fedtwin.research",
        "Researchers: fetch, verify and use released models.\n\n"
        "Example: fedtwin research fetch heart-disease-risk",
    ),
    "demo": (
        "fedtwin.demo.command",
        "Four hospitals, a coordinator and a researcher, here and now.\n\n"
        "Example: fedtwin demo --heart-disease heart-disease --json table.json",
    ),
}
HELP = """Federated digital twins for hospitals. Start with: fedtwin demo

Example: fedtwin client check --network --home /srv/fedtwin
"""
UNFORESEEN = 70


def build(arguments: list[str]) -> typer.Typer:
    """The command tree; only the party that is called for is imported."""
    app = typer.Typer(
        name="fedtwin",
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"max_content_width": 110},
    )
    app.callback()(_nothing)
    wanted = next((word for word in arguments if not word.startswith("-")), "")
    if os.environ.get("GRPC_VERBOSITY") != "DEBUG":
        # The link's core says in its own words why a connection failed, to standard error and to
        # nobody else. The coordinator makes sentences of them; elsewhere errors carry them.
        os.environ["GRPC_VERBOSITY"] = "INFO" if wanted == "server" else "NONE"
    for name, (module, text) in PARTIES.items():
        party = import_module(module).app if name == wanted else typer.Typer()
        if name != wanted:
            party.callback()(_nothing)
        # The demo plays without further words; a party without a command shows its help.
        app.add_typer(party, name=name, help=text, no_args_is_help=name != "demo")
    return app


def _nothing() -> None:
    """Stands for a party that was not called."""


def main() -> None:
    """Entry point: a mistake ends with one sentence and status 2, never with a traceback.

    A failed check ends with 1. What nobody foresaw ends with 70 and a sentence that says where
    the whole report lies, so that the fault can be found.
    """
    try:
        build(sys.argv[1:])(prog_name="fedtwin")
    except FedtwinError as error:
        _end(str(error), 2)
    except KeyboardInterrupt:
        _end("stopped", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)
    except OSError as error:
        if error.filename is None:
            _end(_report(error), UNFORESEEN)
        _end(f"cannot use {error.filename}: {error.strerror}", 2)
    except Exception as error:
        _end(_report(error), UNFORESEEN)


def _end(sentence: str, status: int) -> None:
    sys.stderr.write(f"fedtwin: {sentence}\n")
    sys.exit(status)


def _report(error: Exception) -> str:
    """Write the whole of a fault of this program to a file of its own; say where it is."""
    import tempfile
    import traceback

    whole = "".join(traceback.format_exception(error))
    kind = type(error).__name__
    try:
        handle, path = tempfile.mkstemp(prefix="fedtwin-fault-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"fedtwin {' '.join(sys.argv[1:])}\n\n{whole}")
    except OSError:
        return f"this is a fault of the program ({kind}), and its report cannot be kept:\n{whole}"
    return (
        f"this is a fault of the program ({kind}), not yours. The whole report is in {path}: "
        "read it, because it may name files and values of yours, and send it to the maintainers"
    )


if __name__ == "__main__":
    main()
