"""A release from a finished study to the list of releases: drafted, signed by several, published.

A draft is a folder: `release/` with the files, and `targets.json`, the list of releases with them.
Signers at one place or at different ones add their signatures one after the other, to the
release's statement and to the list; nothing is published before both have the threshold.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import load
from tuf.api.metadata import Metadata, TargetFile

from fedtwin_protocol.canonical import sha256_hex
from fedtwin_protocol.card_audits import AuditFile, audits_for_card
from fedtwin_protocol.card_writing import write_card
from fedtwin_protocol.content import content_heads, read_content
from fedtwin_protocol.credentials import write_atomically
from fedtwin_protocol.errors import ConfigurationError, ReleaseError
from fedtwin_protocol.release import (
    LARGEST_BYTES,
    LISTED,
    MODEL,
    PLAN,
    STATEMENT,
    Shapes,
    build_release,
    model_bytes,
    sign_release,
    verify_release,
)
from fedtwin_protocol.signing import TrustRoot, envelope_from_bytes
from fedtwin_protocol.study import StudyPlan, plan_from_bytes
from fedtwin_protocol.transparency import LogEntry
from fedtwin_server.coordinator import Home
from fedtwin_server.log_book import LogBook
from fedtwin_server.provenance import provenance_of
from fedtwin_server.run_facts import run_facts
from fedtwin_server.store import Store, StudyRecord
from fedtwin_server.study_record import final_parameters, plan_of
from fedtwin_server.tuf_repository import (
    TufRepository,
    add_signatures,
    check_threshold,
    listed,
    load_metadata,
    signers_of,
)

TARGETS_FILE = "targets.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How far a release is.

    Attributes:
        published: its folder, once the threshold has signed.
        draft: the draft's folder, before.
        signers: holders who have signed.
        missing: signatures that are still needed.
    """

    published: Path | None
    draft: Path
    signers: tuple[str, ...]
    missing: int


def release_study(
    home: Home,
    study: str,
    keys: Sequence[Ed25519PrivateKey],
    now: datetime,
    audits: Sequence[AuditFile] = (),
) -> Outcome:
    """Draft a finished study's release, or take its draft up; sign; publish at the threshold.

    Args:
        home: the coordinator's.
        study: its name.
        keys: of signers.
        now: the time.
        audits: results for the card; with them the release is drafted anew, and signed anew.

    Raises:
        ConfigurationError: the study is not finished, or published already.
        SignatureError: a signature does not fit.
        ReleaseError: the model or its card breaks a rule of releases, or an audit failed or is of
            another model.
    """
    settings, store = home.settings(), home.store()
    try:
        record = store.study(study)
        if record.status not in {"finished", "released"}:
            raise ConfigurationError(
                f"study {study} is {record.status}"
                f"{': ' + record.reason if record.reason else ''}; "
                "only a finished study can be released"
            )
        repository = TufRepository(home.folder)
        repository.root()
        folder = home.folder / "drafts" / f"{record.study}-{record.version}"
        _refuse_published(home, repository, record)
        if audits or not (folder / TARGETS_FILE).exists():
            _draft(home, store, record, folder, now, audits)
        _freshen(repository, folder, now)
        signers = sign_draft(folder, keys, settings.trust)
        missing = max(0, settings.trust.threshold - len(signers))
        published = None if missing else _publish(home, store, folder, now)
        return Outcome(published=published, draft=folder, signers=signers, missing=missing)
    finally:
        store.close()


def sign_draft(
    folder: Path, keys: Sequence[Ed25519PrivateKey], trust: TrustRoot
) -> tuple[str, ...]:
    """Check a draft, and add signatures to its statement and its list.

    Returns:
        Holders who have signed the list.

    Raises:
        ConfigurationError: it is no draft.
        ReleaseError: it breaks a rule; nobody should sign that.
        SignatureError: a signature that is there does not fit.
    """
    files = _files_of(folder)
    targets = load_metadata(folder / TARGETS_FILE)
    plan = plan_from_bytes(envelope_from_bytes(files[PLAN]).body)
    signed = sign_release(files, keys, trust, _shapes(plan, files))
    _check_listed(targets, plan, signed)
    write_atomically(folder / "release" / STATEMENT, signed[STATEMENT], mode=0o644)
    add_signatures(targets, keys)
    write_atomically(folder / TARGETS_FILE, targets.to_bytes(), mode=0o644)
    return tuple(signers_of(targets, trust))


def _draft(
    home: Home,
    store: Store,
    record: StudyRecord,
    folder: Path,
    now: datetime,
    audits: Sequence[AuditFile],
) -> None:
    plan, blobs = plan_of(record), home.blobs()
    final = final_parameters(store, plan, blobs)
    arrays = {name: np.array(a) for name, a in read_content(final, blobs).arrays["arrays"].items()}
    shapes = None
    if plan.model.initial_sha256 is not None:
        shapes = {head.name: head.shape for head in content_heads(final)}
    told = run_facts(store, plan, now)
    if audits:
        model = sha256_hex(model_bytes(arrays))
        told = replace(told, audits=audits_for_card(plan, model, audits))
    card = write_card(plan, told)
    repository = TufRepository(home.folder)
    book = LogBook(store.connection, plan.consortium, repository.online_key())
    facts = provenance_of(plan, card, store.rounds(plan.study), book, now)
    envelope = envelope_from_bytes(record.envelope)
    files = build_release(arrays, card, envelope, now, shapes, facts)
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in files.items():
        write_atomically(folder / "release" / name, data, mode=0o644)
    targets = repository.next_targets(_targets_of(plan, files), now)
    write_atomically(folder / TARGETS_FILE, targets.to_bytes(), mode=0o644)


def _freshen(repository: TufRepository, folder: Path, now: datetime) -> None:
    """Write the list anew where another was published after the draft; it is signed again."""
    newest = repository.next_targets({}, now)
    if load_metadata(folder / TARGETS_FILE).signed.version == newest.signed.version:
        return
    files = _files_of(folder)
    plan = plan_from_bytes(envelope_from_bytes(files[PLAN]).body)
    targets = repository.next_targets(_targets_of(plan, files), now)
    write_atomically(folder / TARGETS_FILE, targets.to_bytes(), mode=0o644)


def _publish(home: Home, store: Store, folder: Path, now: datetime) -> Path:
    trust, files = home.settings().trust, _files_of(folder)
    plan = plan_from_bytes(envelope_from_bytes(files[PLAN]).body)
    verify_release(files, trust, _shapes(plan, files))
    targets = load_metadata(folder / TARGETS_FILE)
    check_threshold(targets, trust)
    target = home.shelf().put(plan.study, plan.version, files)
    TufRepository(home.folder).publish(targets, now)
    store.log(
        LogEntry(
            kind="release",
            study=plan.study,
            version=plan.version,
            subject=sha256_hex(envelope_from_bytes(files[STATEMENT]).body),
            plan_hash=plan.hash,
            time=now,
        )
    )
    store.set_status(plan.study, "released", "", now)
    shutil.rmtree(folder, ignore_errors=True)
    return target


def _refuse_published(home: Home, repository: TufRepository, record: StudyRecord) -> None:
    start = f"{record.study}/{record.version}/"
    names = repository.next_targets({}, datetime.fromisoformat(record.added)).signed.targets
    if any(name.startswith(start) for name in names) and record.status == "released":
        raise ConfigurationError(
            f"{record.study} version {record.version} is published already in "
            f"{home.folder / 'releases' / start}: raise 'version' in the plan"
        )


def _targets_of(plan: StudyPlan, files: Mapping[str, bytes]) -> dict[str, TargetFile]:
    """The files whose bytes the signers' list fixes: all but the statement, which they still sign.

    What the statement's signatures cover is in the list as `statement` beside each file.
    """
    body = envelope_from_bytes(files[STATEMENT]).body
    facts = {
        "study": plan.study,
        "version": str(plan.version),
        "epsilon": f"{plan.privacy.epsilon:g}",
        "delta": f"{plan.privacy.delta:g}",
        "plan_hash": plan.hash,
        "statement": sha256_hex(body),
    }
    return listed({name: files[name] for name in LISTED}, plan.study, plan.version, facts)


def _check_listed(targets: Metadata[Any], plan: StudyPlan, files: Mapping[str, bytes]) -> None:
    """The list names exactly these files of this release.

    Raises:
        ReleaseError: otherwise.
    """
    wanted = _targets_of(plan, files)
    start = f"{plan.study}/{plan.version}/"
    found = {path: t for path, t in targets.signed.targets.items() if path.startswith(start)}
    if found != wanted:
        raise ReleaseError(f"the list of releases in the draft names other files of {start}")


def _files_of(folder: Path) -> dict[str, bytes]:
    try:
        paths = sorted((folder / "release").iterdir())
        largest = max(LARGEST_BYTES.values())
        if any(path.stat().st_size > largest for path in paths):
            raise ReleaseError(f"a file in {folder} is larger than any release's")
        return {path.name: path.read_bytes() for path in paths}
    except OSError as error:
        raise ConfigurationError(
            f"{folder} is no draft of a release ({error.strerror}): 'fedtwin server release' makes "
            "one"
        ) from error


def _shapes(plan: StudyPlan, files: Mapping[str, bytes]) -> Shapes | None:
    """Of the arrays, for a family that is not built in: the file's own, as its header says."""
    if plan.model.initial_sha256 is None:
        return None
    return {name: array.shape for name, array in load(files[MODEL]).items()}
