"""Write a development CA and a certificate for each kind of party into certs/.

python scripts/certs.py            an offline root, an issuing CA, and a leaf for the coordinator,
                                   a site and a researcher, each with its key, readable by you only
python scripts/certs.py --force    the same, in place of what lies there

The certificates are made by the product's own code and hold for the product, but nobody noted them
down: they cannot be revoked. They are for trying out TLS, never for a hospital.
"""

import argparse
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fedtwin_protocol.credentials import (
    CREDENTIALS_FILE,
    Credentials,
    new_key_and_request,
    save_credentials,
)
from fedtwin_protocol.errors import ConfigurationError, FedtwinError
from fedtwin_server.authority import ROOT_FILE, ROOT_KEY_FILE, Authority, create_authority

ROOT = Path(__file__).resolve().parent.parent
OFFLINE = "offline"
PARTIES = ("authority", "coordinator", "site", "researcher")
FILES = (
    f"{OFFLINE}/{ROOT_KEY_FILE}",
    f"{OFFLINE}/{ROOT_FILE}",
    *(f"{party}/{CREDENTIALS_FILE}" for party in PARTIES),
)


def check_room(folder: Path, force: bool) -> None:
    """Refuse a folder that holds certificates, unless they may be replaced.

    Raises:
        ConfigurationError: there are some, and --force was not given.
    """
    taken = [folder / name for name in FILES if (folder / name).exists()]
    if taken and not force:
        raise ConfigurationError(
            f"{taken[0]} exists already: add --force to replace the CA and all its certificates"
        )


def certify(authority: Authority, role: str, name: str, now: datetime, life: timedelta) -> None:
    """Make a key, certify it for a member, and keep both beside the CA."""
    key_pem, request = new_key_and_request()
    leaf = authority.issue_leaf(request, role, name, now, life)
    save_credentials(
        authority.home / role,
        Credentials(key_pem=key_pem, chain_pem=leaf.chain_pem, roots_pem=authority.roots_pem),
    )


def write_all(options: argparse.Namespace, draft: Path, now: datetime) -> str:
    """Write every file below `draft`; returns the root's fingerprint.

    Raises:
        FedtwinError: a name, address or lifetime is not acceptable.
    """
    life = timedelta(hours=options.hours)
    authority = create_authority(
        draft,
        consortium=options.consortium,
        addresses=options.address or ["localhost", "127.0.0.1"],
        now=now,
        root_folder=draft / OFFLINE,
    )
    certify(authority, "site", options.site, now, life)
    certify(authority, "researcher", options.researcher, now, life)
    return authority.root_fingerprint


def put_in_place(draft: Path, folder: Path) -> None:
    """Move what was written to where it belongs, readable by its owner only."""
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        (draft / name).chmod(0o600)
        (draft / name).replace(folder / name)


def parse_options() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "certs", help="where to write")
    parser.add_argument("--consortium", default="development", help="name in every certificate")
    parser.add_argument(
        "--address", action="append", help="host name or number of the coordinator; repeatable"
    )
    parser.add_argument("--site", default="first-site", help="the site's name")
    parser.add_argument("--researcher", default="first-researcher", help="the researcher's name")
    parser.add_argument(
        "--hours", type=float, default=24, help="life of the members' leaves, at most 336"
    )
    parser.add_argument("--force", action="store_true", help="replace what lies there")
    return parser.parse_args()


def main() -> int:
    """Entry point: a mistake ends with one sentence and status 2, and leaves all as it was."""
    options = parse_options()
    try:
        check_room(options.folder, options.force)
        options.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=options.folder) as draft:
            fingerprint = write_all(options, Path(draft), datetime.now(UTC))
            put_in_place(Path(draft), options.folder)
    except FedtwinError as error:
        print(f"certs.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"certs.py: cannot write {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    print(f"a development CA of {options.consortium} lies in {options.folder}")
    print(f"root fingerprint: {fingerprint}")
    print("never commit these files: each but root.pem holds a private key")
    return 0


if __name__ == "__main__":
    sys.exit(main())
