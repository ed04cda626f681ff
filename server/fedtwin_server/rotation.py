"""Other signers, or the same ones for another year: the next TUF root, signed by old and new.

A draft, `<home>/drafts/root/`, gathers signatures: `root.json` needs the threshold of the present
signers and of the coming ones, `targets.json` (the list of releases, signed anew) that of the
coming ones. Members learn of the change by the chain of roots and need no new invitation.
"""

import base64
import binascii
import shutil
from collections.abc import Sequence
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import ValidationError

from fedtwin_protocol.credentials import write_atomically
from fedtwin_protocol.errors import ConfigurationError
from fedtwin_protocol.signing import SigningKey, TrustRoot
from fedtwin_protocol.tuf_roots import read_root
from fedtwin_server.consortium import check_names, write_settings
from fedtwin_server.coordinator import Home
from fedtwin_server.tuf_repository import (
    TufRepository,
    add_signatures,
    load_metadata,
    signers_of,
)


def replace_signer(
    home: Home,
    old: str,
    new: str,
    public: str,
    keys: Sequence[Ed25519PrivateKey],
    now: datetime,
) -> str:
    """Let one key take another's place among the signers, as far as the signatures go.

    Returns:
        What was done, and who must still sign.

    Raises:
        ConfigurationError: no such signer, no such key, or another change is under way.
        SignatureError: a signature does not fit.
    """
    trust = home.settings().trust
    rest = [key for key in trust.keys if key.holder != old]
    if len(rest) == len(trust.keys):
        names = ", ".join(key.holder for key in trust.keys)
        raise ConfigurationError(f"'{old}' is no signer of {trust.consortium}; they are: {names}")
    check_names(trust.consortium, [*(key.holder for key in rest), new], trust.threshold)
    try:
        Ed25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True))
        coming = SigningKey(holder=new, public=public)
        wanted = TrustRoot(
            consortium=trust.consortium, keys=(*rest, coming), threshold=trust.threshold
        )
    except (ValueError, binascii.Error, ValidationError) as error:
        raise ConfigurationError(
            "expected the public half that 'fedtwin server signers key' prints (32 bytes, base64), "
            "of a key that is no signer's yet"
        ) from error
    return _advance(home, wanted, keys, now)


def renew_signatures(home: Home, keys: Sequence[Ed25519PrivateKey], now: datetime) -> str:
    """Sign root and list again for another year, by the same signers."""
    return _advance(home, home.settings().trust, keys, now)


def _advance(
    home: Home, wanted: TrustRoot, keys: Sequence[Ed25519PrivateKey], now: datetime
) -> str:
    repository = TufRepository(home.folder)
    before = repository.root().trust
    folder = home.folder / "drafts" / "root"
    root_file, list_file = folder / "root.json", folder / "targets.json"
    targets, root = repository.next_targets({}, now), repository.next_root(wanted, now)
    if root_file.exists():
        drafted = load_metadata(root_file)
        if read_root(drafted.to_bytes())[0].trust != wanted:
            raise ConfigurationError(
                f"another change of signers is under way in {folder}: finish it, or remove that "
                "folder"
            )
        kept = load_metadata(list_file)
        root = drafted if drafted.signed.version == root.signed.version else root
        targets = kept if kept.signed.version == targets.signed.version else targets
    add_signatures(root, [key for key in keys if _is_one_of(key, before, wanted)])
    add_signatures(targets, [key for key in keys if _is_one_of(key, wanted)])
    write_atomically(root_file, root.to_bytes(), mode=0o644)
    write_atomically(list_file, targets.to_bytes(), mode=0o644)
    lacking = max(
        before.threshold - len(signers_of(root, before)),
        wanted.threshold - len(signers_of(root, wanted)),
        wanted.threshold - len(signers_of(targets, wanted)),
    )
    if lacking > 0:
        return (
            f"drafted in {folder}; {lacking} more must sign: type the same again with their --key "
            f"({before.threshold} of the present signers, {wanted.threshold} of the coming ones)"
        )
    repository.publish_root(root, targets, now)
    write_settings(home, home.settings().model_copy(update={"trust": wanted}))
    shutil.rmtree(folder, ignore_errors=True)
    names = ", ".join(key.holder for key in wanted.keys)
    return f"TUF root {root.signed.version} is published; the signers are {names}"


def _is_one_of(key: Ed25519PrivateKey, *trusts: TrustRoot) -> bool:
    raw = base64.b64encode(key.public_key().public_bytes_raw()).decode("ascii")
    return any(raw == one.public for trust in trusts for one in trust.keys)
