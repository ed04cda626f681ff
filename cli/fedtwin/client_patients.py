"""`fedtwin client consent …`, `keys …`, `records erase`, `records merged` and `unmerge`."""

from pathlib import Path
from typing import Annotated

import typer

from fedtwin.paper import console, data_folder, now, refuse_misplaced, say

Folder = Annotated[
    Path, typer.Option("--home", envvar="FEDTWIN_CLIENT_HOME", help="The node's folder.")
]
EvenOlder = Annotated[
    bool,
    typer.Option(
        "--even-older", help="Replace also what is newer in the store, to go back on purpose."
    ),
]
Number = Annotated[str, typer.Argument(help="The patient's number; it is written down nowhere.")]
System = Annotated[
    str | None,
    typer.Option(help="Whose number it is: identifier system, server or table; if only one, none."),
]
DEFAULT_HOME = data_folder("client")

consent = typer.Typer(
    help="Who takes part in research: objections, withdrawal, one patient's state.\n\n"
    "Example: fedtwin client consent withdraw 4711",
    rich_markup_mode=None,
)
keys = typer.Typer(
    help="The keys that the node's files are encrypted with.\n\nExample: fedtwin client keys",
    rich_markup_mode=None,
)


@consent.callback(invoke_without_command=True)
def consent_counts(context: typer.Context, home: Folder = DEFAULT_HOME) -> None:
    """Count who takes part and who does not; these numbers stay here.

    Example: fedtwin client consent
    """
    if context.invoked_subcommand is not None:
        refuse_misplaced(context, "home")
        return
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.patients import consent_counts as counts

    place = NodeHome(folder=home)
    place.settings()
    say(*counts(place, now()))


@consent.command("import")
def consent_import(
    file: Annotated[Path, typer.Argument(help="Patients' numbers, one a line.")],
    home: Folder = DEFAULT_HOME,
    system: System = None,
) -> None:
    """Add a file of patients' numbers to the list of objections.

    Example: fedtwin client consent import objections.txt --system http://st-olav.example/mrn
    """
    from fedtwin_client.assemble import site_secret
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.patients import import_objections

    place = NodeHome(folder=home)
    say(*import_objections(place, site_secret(place), file, system, now()))


@consent.command("withdraw")
def consent_withdraw(number: Number, home: Folder = DEFAULT_HOME, system: System = None) -> None:
    """One patient objects or withdraws; running studies leave them out from the next task on.

    Example: fedtwin client consent withdraw 4711
    """
    from fedtwin_client.assemble import site_secret
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.patients import withdraw

    place = NodeHome(folder=home)
    say(*withdraw(place, site_secret(place), number, system, now()))


@consent.command("lift")
def consent_lift(number: Number, home: Folder = DEFAULT_HOME, system: System = None) -> None:
    """Take one patient off the list of objections again, because they say so.

    Example: fedtwin client consent lift 4711
    """
    from fedtwin_client.assemble import site_secret
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.patients import lift

    place = NodeHome(folder=home)
    say(lift(place, site_secret(place), number, system))


@consent.command("show")
def consent_show(number: Number, home: Folder = DEFAULT_HOME, system: System = None) -> None:
    """One patient's state, and why.

    Example: fedtwin client consent show 4711
    """
    from fedtwin_client.assemble import site_secret
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.patients import standing_in_words

    place = NodeHome(folder=home)
    say(*standing_in_words(place, site_secret(place), number, system, now()))


def erase(number: Number, home: Folder = DEFAULT_HOME, system: System = None) -> None:
    """Erase one patient's events and the way back to them; later imports leave them out.

    Example: fedtwin client records erase 4711
    """
    from fedtwin_client.assemble import site_secret
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.patients import erase as erase_one

    place = NodeHome(folder=home)
    secret = site_secret(place)
    with console.status("erasing"):
        lines = erase_one(place, secret, number, system, now())
    say(*lines)


def merged(home: Folder = DEFAULT_HOME) -> None:
    """Patients who are one person under several numbers, by the number that is no longer used.

    Example: fedtwin client records merged
    """
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.patients import merged_in_words

    place = NodeHome(folder=home)
    place.settings()
    say(*merged_in_words(place))


def unmerge(number: Number, home: Folder = DEFAULT_HOME, system: System = None) -> None:
    """Make a patient who was merged into another one a patient again, and keep the two apart.

    Example: fedtwin client records unmerge 4711 --system http://st-olav.example/mrn
    """
    from fedtwin_client.assemble import site_secret
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.patients import unmerge as unmerge_one

    place = NodeHome(folder=home)
    secret = site_secret(place)
    with console.status("moving events"):
        lines = unmerge_one(place, secret, number, system, now())
    say(*lines)


@keys.callback(invoke_without_command=True)
def keys_state(context: typer.Context, home: Folder = DEFAULT_HOME) -> None:
    """Where the site key is, and whether everything is encrypted.

    Example: fedtwin client keys
    """
    if context.invoked_subcommand is not None:
        refuse_misplaced(context, "home")
        return
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.node.sealing import keys_in_words

    place = NodeHome(folder=home)
    place.settings()
    say(keys_in_words(place))


@keys.command("seal")
def keys_seal(
    home: Folder = DEFAULT_HOME,
    key_file: Annotated[
        str | None, typer.Option(help="Where the site key is or goes, outside the node's folder.")
    ] = None,
) -> None:
    """Encrypt a node's files that are not encrypted yet; stop the node first.

    Example: fedtwin client keys seal --key-file /srv/fedtwin-keys/node.key
    """
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.node.sealing import keys_in_words, make_keys, seal

    place = NodeHome(folder=home)
    place.settings()
    place.lock()
    make_keys(place, key_file)
    with console.status("encrypting"):
        seal(place, take_plain=True)
    say(keys_in_words(place))


@keys.command("rotate")
def keys_rotate(
    home: Folder = DEFAULT_HOME,
    new_key: Annotated[
        Path | None, typer.Option(help="A new site key made elsewhere, as for systemd.")
    ] = None,
) -> None:
    """New keys for everything; stop the node first. If it is cut off, run it again.

    Example: fedtwin client keys rotate
    """
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.node.sealing import rotate

    place = NodeHome(folder=home)
    place.settings()
    place.lock()
    with console.status("encrypting"):
        done = rotate(place, new_key)
    say(done)
