"""Where the node's wings meet: setting a node up, checking it, and its own report of a release."""

import asyncio
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from fedtwin_client.at_rest.keyring import keyring_of
from fedtwin_client.node.home import NodeHome, NodeSettings
from fedtwin_client.node.ledger import Ledger
from fedtwin_client.node.log_watch import describe_log, read_watched
from fedtwin_client.node.policy import default_policy_text, load_policy
from fedtwin_client.node.sealing import keys_in_words, make_keys, make_secret, read_secret
from fedtwin_client.node.studies import Decision, KnownStudies
from fedtwin_client.node.workers import Workers
from fedtwin_client.patients import NO_PART, absent_from, consent_counts
from fedtwin_client.readiness.standing import blocks
from fedtwin_client.records.codes.tables import site_tables
from fedtwin_client.store.erasure import unfinished
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.canonical import canonical_bytes
from fedtwin_protocol.content import make_content
from fedtwin_protocol.credentials import (
    check_writable,
    load_credentials,
    write_atomically,
)
from fedtwin_protocol.enrolment import enrol
from fedtwin_protocol.errors import (
    ConfigurationError,
    FedtwinError,
    LogError,
    PolicyError,
    RecordError,
)
from fedtwin_protocol.fetching import Source, check_against_list, fetch_release, reading
from fedtwin_protocol.invitation import Invitation, read_invitation
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.release import Release, verify_release
from fedtwin_protocol.site_key import keep_site_key
from fedtwin_protocol.tuf_client import TufClient


def enrol_node(
    folder: Path,
    invitation_file: Path,
    address: str | None,
    proxy: str | None,
    now: datetime,
    site_key: str | None = None,
) -> list[str]:
    """Spend an invitation and write the node's folder.

    Args:
        folder: the node's; in an existing one ledger, policy, records and keys stay.
        invitation_file: from the consortium.
        address: `host:port` to dial, if another than the invitation's.
        proxy: on the way out.
        now: the time.
        site_key: where the site key is or goes, as `key_file` in node.yaml; none: beside the
            folder.

    Raises:
        InvitationError: it is wrong, used or too old.
        ConfigurationError: it is for a researcher, the folder cannot be written, or it is the
            folder of another site.
        LinkError: the coordinator was not reached.
    """
    invitation = read_invitation(invitation_file, now)
    if invitation.role != "site":
        raise ConfigurationError(
            f"{invitation_file} invites a {invitation.role}: use 'fedtwin research enrol'"
        )
    home = NodeHome(folder=folder)
    if home.settings_file.exists():
        _refuse_another_site(home.settings(), invitation, folder)
    check_writable(home.identity)  # before the invitation is spent
    asyncio.run(enrol(invitation, home.identity, address, proxy))
    before = home.settings() if home.settings_file.exists() else None
    settings = NodeSettings(
        consortium=invitation.consortium,
        site=invitation.name,
        coordinator=address or invitation.address,
        proxy=proxy,
        client_apps=before.client_apps if before else {},
        key_file=before.key_file if before else site_key,
    )
    text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)
    write_atomically(home.settings_file, text.encode())
    trust = canonical_bytes(invitation.trust.model_dump(mode="json"))
    write_atomically(folder / "trust.json", trust, mode=0o644)
    if not home.policy_file.exists():
        write_atomically(home.policy_file, default_policy_text().encode(), mode=0o644)
    key = make_keys(home, settings.key_file or site_key)
    site_secret(home)
    return [
        f"{invitation.name} is enrolled in {invitation.consortium}; its folder is {folder}",
        f"its files are encrypted with the site key {key}: keep a copy of it apart from backups "
        "of the folder; without it nothing in the folder can be read",
        f"root fingerprint, to compare by telephone: {invitation.root_fingerprint}",
        f"what the hospital allows stands in {home.policy_file}: read it before going on",
        "next: fedtwin client records …, fedtwin client check, fedtwin client run",
    ]


def _refuse_another_site(settings: NodeSettings, invitation: Invitation, folder: Path) -> None:
    here, asked = (settings.consortium, settings.site), (invitation.consortium, invitation.name)
    if here != asked:
        raise ConfigurationError(
            f"{folder} is the node of {settings.site} in {settings.consortium}, with its ledger; "
            f"for {invitation.name} in {invitation.consortium} name another folder with --home"
        )


def site_secret(home: NodeHome) -> bytes:
    """The 32 bytes that pseudonyms are made with; made once, never replaced.

    Raises:
        ConfigurationError: there is no node here.
    """
    home.settings()
    keyring = keyring_of(home.folder)
    make_secret(home, keyring)
    return read_secret(home, keyring)


def check_node(home: NodeHome, now: datetime) -> list[str]:
    """Identity, policy, ledger, records: a line each, with what is wrong and how to mend it.

    Raises:
        ConfigurationError: there is no node here.
    """
    settings = home.settings()
    lines = [f"{settings.site} in {settings.consortium}, coordinator {settings.coordinator}"]

    def identity() -> str:
        credentials = load_credentials(home.identity)
        credentials.check(now)
        until = credentials.identity.not_after
        public = keep_site_key(home.identity).public
        return f"valid until {until:%Y-%m-%d %H:%M} UTC, renewed by itself; signing key {public}"

    def ledger() -> str:
        with Ledger(home.ledger_file) as book:
            book.verify()
            return f"{book.head()[0]} entries, chain whole"

    def records() -> str:
        timeline = Timeline.open(home.records)
        return f"{timeline.rows} events, {len(timeline.codes())} codes"

    def codes() -> str:
        return site_tables(home.records).version

    def policy() -> str:
        return f"in order, epsilon per study {load_policy(home.policy_file).epsilon_per_study:g}"

    parts = {
        "log": lambda: _log_line(home),
        "identity": identity,
        "policy": policy,
        "ledger": ledger,
        "records": records,
        "codes": codes,
    }
    parts |= {"consents": lambda: _consents_line(home, now), "keys": lambda: keys_in_words(home)}
    for name, look in parts.items():
        try:
            lines.append(f"ok   {name}: {look()}")
        except FedtwinError as error:
            lines.append(f"FAIL {name}: {error}")
    return lines


def _log_line(home: NodeHome) -> str:
    watched = read_watched(home)
    if watched.alarm is not None:
        raise LogError(f"{watched.alarm.text}; see 'fedtwin client log'")
    return describe_log(home)[0]


def _consents_line(home: NodeHome, now: datetime) -> str:
    waiting = unfinished(home.records)
    if waiting:
        raise RecordError(
            f"{len(waiting)} erasure(s) were cut off: run 'fedtwin client records erase' "
            "again, or import anything, which finishes them"
        )
    return "; ".join(consent_counts(home, now))


def check_study(home: NodeHome, study: str, now: datetime) -> list[str]:
    """A study's cohort at this site: who is in, who is left out and why. It stays here.

    Raises:
        CohortError: it cannot be built.
        ConfigurationError: no such study was offered.
    """
    from fedtwin_client.cohort.rows import require_enough  # noqa: PLC0415 - DuckDB
    from fedtwin_client.training.built_in import load_rows  # noqa: PLC0415 - DuckDB

    home.settings()
    plan = KnownStudies(home.studies_file).by_name(study).plan
    missing = blocks(home.folder, plan.hash)
    blocked_here = [
        f"  blocked {name}: counts as missing for everybody here ({why}); see 'fedtwin client "
        f"readiness {study} --last'"
        for name, why in missing
    ]
    rows = load_rows(plan, home.records, now, without=[block.feature for block in missing])
    out = absent_from(home, frozenset(rows.subject_ids.tolist()), now)
    present = rows.without(out)
    require_enough(plan, len(present.labels), rows.exclusions | {NO_PART: len(out)})
    everybody, rows = rows, present
    held_out = int(rows.holdout.sum())
    lines = [f"{len(rows.labels) - held_out} patients for training, {held_out} held out"]
    lines += [f"  left out: {count} {reason}" for reason, count in everybody.exclusions.items()]
    with Ledger(home.ledger_file) as book:
        members = book.members(plan.hash)
    if members is not None:
        outside = len(set(rows.subject_ids.tolist()).difference(members))
        lines.append(
            f"  of these {outside} are not used by the study: their lifetime budget is spent, or "
            "they came after it began (this number stays here)"
        )
    lines += [f"  left out: {len(out)} {NO_PART}"] if out else []
    lines += blocked_here
    lines += [f"  missing {name}: {count}" for name, count in rows.missing.items() if count]
    lines += [f"  implausible {name}: {count}" for name, count in rows.implausible.items() if count]
    if rows.clipped:
        lines.append(
            f"  {plan.endpoint.name}: {rows.clipped} patients lie beyond the plan's "
            f"bounds, {plan.endpoint.bounds_in_words}, and count as the nearest bound"
        )
    return lines


def decide_by_person(folder: Path, study: str, person: str, take_part: bool, now: datetime) -> str:
    """Write a person's decision down; the running node acts on it.

    Raises:
        ConfigurationError: no such study, or no node here.
        PolicyError: the policy refused it, or it is over.
    """
    home = NodeHome(folder=folder)
    home.settings()
    studies = KnownStudies(home.studies_file)
    known = studies.by_name(study)
    if known.decision == "ended":
        raise PolicyError(f"study {study} is over ({known.state})")
    if take_part and known.decision != "held":
        raise PolicyError(
            f"study {study} is {known.decision}, not held for a person"
            + (f": {known.reasons}" if known.reasons else "")
        )
    reasons = tuple(known.reasons.splitlines())
    decision: Decision = "approved" if take_part else "declined"
    studies.decide(known.plan_hash, decision, reasons, now, by_person=person)
    studies.close()
    return f"study {study}: {'accepted' if take_part else 'declined'} by {person}"


def _newest_release(home: NodeHome, source: Source, study: str, now: datetime) -> Release:
    """The newest release of a study, as today's signers list it."""
    with reading(source) as read:
        client = TufClient(home.folder / "tuf", home.pinned_trust(), read, now)
        listing = client.refresh()
        files = fetch_release(client, listing, read, study, 0)
    version = listing.versions(study)[-1]
    check_against_list(files, listing.of(study, version))
    former = [root.trust for root in listing.roots[:-1]]
    return verify_release(files, listing.root.trust, former=former)


async def report_release(folder: Path, study: str, now: datetime) -> dict[str, Any]:
    """Fetch and verify a release, and try it on this hospital's held-out patients.

    Raises:
        ReleaseError: there is none, or it does not verify.
        SignatureError: too few signatures.
        CohortError: the cohort cannot be built here.
    """
    home = NodeHome(folder=folder)
    settings = home.settings()
    source = Source(
        address=settings.coordinator,
        credentials=load_credentials(home.identity),
        proxy=settings.proxy,
    )
    release = await asyncio.to_thread(_newest_release, home, source, study, now)
    workers = Workers(home, settings, lambda: now)
    content = make_content(Payload(arrays={"arrays": release.parameters}), BlobStore(home.contents))
    try:
        reply = await workers.worker(release.plan).ask(
            {"op": "report"}, content.SerializeToString()
        )
    finally:
        with suppress(ProcessLookupError):
            await workers.stop_all()
    report: dict[str, Any] = reply.head["report"]
    return report
