"""`fedtwin server release`, `sign` and `signers`: what the consortium's signers sign."""

from pathlib import Path
from typing import Annotated

import typer

from fedtwin.paper import data_folder, now, refuse_misplaced, say, show_table

Folder = Annotated[
    Path, typer.Option("--home", envvar="FEDTWIN_SERVER_HOME", help="The coordinator's folder.")
]
Keys = Annotated[
    list[Path], typer.Option("--key", help="A signer's private key; repeat for each signer.")
]
SomeKeys = Annotated[
    list[Path] | None, typer.Option("--key", help="A signer's private key; repeatable.")
]
DEFAULT_HOME = data_folder("server")


def release(
    study: Annotated[str, typer.Argument(help="A finished study.")],
    key: SomeKeys = None,
    home: Folder = DEFAULT_HOME,
    audits: Annotated[
        list[Path] | None,
        typer.Option(help="Results of privacy audits for the card (JSON); repeatable."),
    ] = None,
) -> None:
    """Draft a finished study's release, sign it, and publish it when enough signers have.

    To put audits in the card: draft without keys, run 'fedtwin research audit FOLDER --draft --json
    FILE' on the draft's folder 'release', and then give --audits FILE. A model whose audit failed
    is not released.

    Example: fedtwin server release heart-disease-risk --key oslo.key --key bergen.key
    """
    from fedtwin.auditing import read_audits
    from fedtwin_protocol.signing import load_signing_key
    from fedtwin_server.coordinator import Home
    from fedtwin_server.publishing import release_study

    keys = [load_signing_key(path) for path in key or ()]
    results = read_audits(audits or ())
    done = release_study(Home(folder=home), study, keys, now(), results)
    if done.published is not None:
        say(f"{study} is released: {done.published} (card.html is the readable card)")
        return
    say(
        f"{study} is drafted in {done.draft}, signed by {', '.join(done.signers) or 'nobody'}; "
        f"{done.missing} more must sign",
        f"the next signer, here: fedtwin server release {study} --key THEIR.key",
        f"or at another place, on a copy of the folder: fedtwin server sign {done.draft} --key "
        "THEIR.key --trust trust.json; bring the folder back, then: fedtwin server release "
        f"{study}",
    )


def sign(
    draft: Annotated[Path, typer.Argument(help="The folder of a draft.")],
    key: Keys,
    trust: Annotated[Path, typer.Option(help="trust.json: the consortium's signers.")],
) -> None:
    """Check a draft at any place and add a signature; nothing is published by it.

    Example: fedtwin server sign heart-disease-risk-1 --key bergen.key --trust trust.json
    """
    from fedtwin_protocol.signing import load_signing_key
    from fedtwin_research.library import read_trust
    from fedtwin_server.publishing import sign_draft

    signers = sign_draft(draft, [load_signing_key(path) for path in key], read_trust(trust))
    say(f"{draft} is signed by {', '.join(signers)}; take it back to the coordinator")


signers = typer.Typer(
    help="The signers: list them; make a key, replace one, renew their signatures.\n\n"
    "Example: fedtwin server signers",
    rich_markup_mode=None,
)


@signers.callback()
def signers_default(context: typer.Context, home: Folder = DEFAULT_HOME) -> None:
    """Who signs plans and releases, how many must, and until when it holds.

    Example: fedtwin server signers
    """
    if context.invoked_subcommand is not None:
        refuse_misplaced(context, "home")
        return
    from fedtwin_server.tuf_repository import TufRepository

    root = TufRepository(home).root()
    rows = [[key.holder, key.public] for key in root.trust.keys]
    show_table("", ["signer", "public key"], rows)
    say(f"{root.trust.threshold} of them must sign; TUF root {root.version}")


@signers.command("key")
def signers_key(
    holder: Annotated[str, typer.Argument(help="The person or office that keeps it.")],
    out: Annotated[Path, typer.Option(help="Where the private key is written.")],
) -> None:
    """Make a signer's key at the signer's own place; tell the public half to the others.

    Example: fedtwin server signers key tromso --out tromso.key
    """
    from fedtwin_server.consortium import check_names, make_signer

    check_names("consortium", [holder], 1)
    made = make_signer(out, holder)
    say(f"{out} is the private key of {holder}; its public half, for 'signers replace':")
    say(made.public)


@signers.command("replace")
def signers_replace(
    old: Annotated[str, typer.Argument(help="Whose key goes.")],
    new: Annotated[str, typer.Argument(help="Whose key comes; may be the same holder.")],
    public: Annotated[str, typer.Option(help="The new key's public half, base64.")],
    key: SomeKeys = None,
    home: Folder = DEFAULT_HOME,
) -> None:
    """Replace a signer's key: enough of the old signers and of the new ones must sign.

    Type it again for each further signer. Example: fedtwin server signers replace oslo alta
    --public 3pbs…= --key bergen.key --key alta.key
    """
    from fedtwin_protocol.signing import load_signing_key
    from fedtwin_server.coordinator import Home
    from fedtwin_server.rotation import replace_signer

    keys = [load_signing_key(path) for path in key or ()]
    say(replace_signer(Home(folder=home), old, new, public, keys, now()))


@signers.command("renew")
def signers_renew(key: SomeKeys = None, home: Folder = DEFAULT_HOME) -> None:
    """Sign root and list of releases again for a year; at least once a year.

    Example: fedtwin server signers renew --key oslo.key --key bergen.key
    """
    from fedtwin_protocol.signing import load_signing_key
    from fedtwin_server.coordinator import Home
    from fedtwin_server.rotation import renew_signatures

    keys = [load_signing_key(path) for path in key or ()]
    say(renew_signatures(Home(folder=home), keys, now()))


def register(app: typer.Typer) -> None:
    """Put these commands below `fedtwin server`."""
    app.command()(release)
    app.command()(sign)
    app.add_typer(signers, name="signers", invoke_without_command=True)
