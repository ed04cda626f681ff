"""The whole chain behind a release: who signed, what the log says, and whether it all fits.

Fetching: the list of releases is refreshed and believed (TUF), the files are those of the list, the
log's head is believed after the last one that was held here, every other site's view that a signed
plan vouches for fits it, and plan, rounds and release are proven to be in the log. What was shown
is kept as `evidence/` beside the release, and verifying goes through all of it again offline.
"""

import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from fedtwin_protocol.attestation import EVIDENCE
from fedtwin_protocol.canonical import sha256_hex
from fedtwin_protocol.credentials import write_atomically
from fedtwin_protocol.errors import LogError, ReleaseError, SignatureError
from fedtwin_protocol.fetching import Source, ask_log, fetch_release, reading
from fedtwin_protocol.release import MODEL, PLAN, STATEMENT, Release
from fedtwin_protocol.signing import TrustRoot, envelope_from_bytes
from fedtwin_protocol.transparency import (
    LogHead,
    Proven,
    check_gossip,
    check_growth,
    check_proven,
    head_from_bytes,
    news_from_json,
    news_to_json,
)
from fedtwin_protocol.tuf_client import Listing, TufClient, keep_metadata
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_research.library import Library, offline_listing, read_release, verify_listed

PROOFS = "log.json"
# The coordinator proves so many entries of a study at most, plan and release among them.
MOST_ROUNDS_PROVEN = 1990


def fetch_study(
    library: Library, source: Source, consortium: str, wanted: tuple[str, int], now: datetime
) -> Release:
    """Fetch a release, believe the whole chain behind it, and keep it with the evidence.

    Args:
        library: where it goes.
        source: the coordinator.
        consortium: whose it is.
        wanted: study and version; version 0 is the newest.
        now: the time.

    Raises:
        ReleaseError: roll-back, freeze, mix-and-match, endless data, or a rule of the release.
        SignatureError: too few signatures.
        LogError: the log does not fit what was held, or what other sites hold.
        LinkError: the coordinator was not reached.
    """
    study, version = wanted
    pinned = library.trust(consortium)
    with reading(source) as read:
        client = TufClient(library.folder / "tuf" / consortium, pinned, read, now)
        listing = client.refresh()
        files = fetch_release(client, listing, read, study, version)
    release = verify_listed(files, pinned, listing)
    held = library.folder / "logs" / f"{consortium}.json"
    old = _held(held, consortium, listing)
    news = asyncio.run(ask_log(source, old.size if old else 0, study, release.plan.version))
    believe_news(news, old, release, listing, held)
    check_logged(release, files, listing, news)
    with tempfile.TemporaryDirectory() as folder:
        keep_metadata(library.folder / "tuf" / consortium, Path(folder))
        evidence = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    evidence[PROOFS] = news_to_json(news)
    kept = library.add(files, consortium, evidence, listing)
    write_atomically(held, news.head, mode=0o644)
    return kept


def believe_news(
    news: pb.LogNews, old: LogHead | None, release: Release, listing: Listing, held: Path
) -> None:
    """The newest head after the one that was held, and other sites' views of it.

    Raises:
        LogError: two histories; what was shown is kept as evidence beside the held head.
    """
    online = listing.root.online
    try:
        head = head_from_bytes(news.head, release.plan.consortium, online)
        check_growth(old, head, list(news.consistency))
        for told in news.others:
            try:
                check_gossip(told, head, release.plan.sites.keys, online)
            except SignatureError:
                continue  # a site whose key this plan does not vouch for accuses nobody
    except LogError as error:
        shown = held.with_suffix(".alarm")
        write_atomically(shown, news.SerializeToString(), mode=0o644)
        raise LogError(
            f"ALARM: {error}. What was shown is kept in {shown}, what was held before in {held}: "
            "send both to the signers; nothing was fetched"
        ) from error


def check_logged(
    release: Release, files: Mapping[str, bytes], listing: Listing, news: pb.LogNews
) -> tuple[LogHead, list[Proven]]:
    """Plan, every round and the release are in the log.

    Returns:
        The head, and the entries that were proven.

    Raises:
        LogError: one is absent, or a proof does not lead to the head.
    """
    plan, facts = release.plan, release.provenance
    head = head_from_bytes(news.head, plan.consortium, listing.root.online)
    proven = [check_proven(shown, head) for shown in news.entries]
    mine = [item.entry for item in proven if item.entry.plan_hash == plan.hash]
    statement = sha256_hex(envelope_from_bytes(files[STATEMENT]).body)
    for kind, subject in (("plan", plan.hash), ("release", statement)):
        if not any((entry.kind, entry.subject) == (kind, subject) for entry in mine):
            raise LogError(f"the log does not hold this {kind}: it was kept from the others")
    rounds = sorted((e for e in mine if e.kind == "round"), key=lambda entry: entry.round)
    told = [int(number) for number in facts.get("sites_by_round", [])]
    if [len(entry.sites) for entry in rounds][-MOST_ROUNDS_PROVEN:] != told[-MOST_ROUNDS_PROVEN:]:
        raise LogError(
            f"the log holds {len(rounds)} rounds of this plan, the release tells of {len(told)}, "
            "or of other numbers of sites"
        )
    return head, proven


def tell_chain(folder: Path, pinned: TrustRoot, now: datetime) -> list[str]:
    """Verify a folder with a release, and tell the chain a line each.

    Args:
        folder: the release's files, and `evidence/` where it was fetched with it.
        pinned: the signers whom the reader trusts.
        now: the time.

    Raises:
        ReleaseError: a rule of the release is broken, or the list names other files.
        SignatureError: too few or wrong signatures.
        LogError: the log's proofs do not fit.
    """
    files = read_release(folder)
    evidence = folder / EVIDENCE
    listing = offline_listing(evidence, pinned) if evidence.is_dir() else None
    release = verify_listed(files, pinned, listing)
    trusts = [pinned] if listing is None else [root.trust for root in reversed(listing.roots)]
    plan, statement = release.plan, release.statement
    return [
        f"signers: {_signers(files[STATEMENT], trusts)}",
        *_listing_lines(listing, now),
        f"statement: {statement.created:%Y-%m-%d %H:%M} UTC, {len(statement.files)} files with "
        "size and SHA-256, card and plan agree, model.sig fits",
        f"plan: {plan.hash}, signed by {_signers(files[PLAN], trusts)}",
        _privacy_line(release),
        _rounds_line(release),
        *_log_lines(release, files, listing, evidence),
        f"model: SHA-256 {statement.files[MODEL].sha256}, {len(release.parameters)} arrays, "
        f"{sum(array.size for array in release.parameters.values())} finite numbers",
        f"verified: {plan.study} version {plan.version} of {plan.consortium}"
        + ("" if listing else "; NOT CHECKED: whether it is listed and logged, see above"),
    ]


def _held(path: Path, consortium: str, listing: Listing) -> LogHead | None:
    if not path.exists():
        return None
    return head_from_bytes(path.read_bytes(), consortium, listing.root.online)


def _signers(data: bytes, trusts: Sequence[TrustRoot]) -> str:
    """Holders whose (already verified) signatures a document bears, by the first fitting root."""
    signed = {signature.keyid for signature in envelope_from_bytes(data).signatures}
    for trust in trusts:
        names = [key.holder for key in trust.keys if key.key_id in signed]
        if len(names) >= trust.threshold:
            return f"{', '.join(names)} ({trust.threshold} of {len(trust.keys)} must)"
    raise SignatureError("too few signatures")


def _listing_lines(listing: Listing | None, now: datetime) -> list[str]:
    if listing is None:
        return [
            "TUF: this folder holds no metadata (evidence/), so that nobody can tell whether it is "
            "on the list of releases, or the newest"
        ]
    fresh = (
        f"the newest until {listing.expires:%Y-%m-%d %H:%M} UTC"
        if now < listing.expires
        else f"the newest as of {listing.expires:%Y-%m-%d %H:%M} UTC; fetch to hear of newer ones"
    )
    return [
        f"TUF: root {listing.root.version}, list {listing.version} signed by "
        f"{', '.join(listing.signers)} until {listing.signers_expire:%Y-%m-%d}, {fresh}"
    ]


def _privacy_line(release: Release) -> str:
    privacy, facts = release.plan.privacy, release.provenance
    costs = [
        f"{item['epsilon']:.4g} by {item['accountant'].partition(',')[0][:60]}"
        for item in facts.get("accountants", [])[1:]
    ]
    return (
        f"privacy: mode {privacy.mode}, epsilon {privacy.epsilon:g} at delta {privacy.delta:g} per "
        f"{privacy.unit}; C {privacy.clipping_norm:g}, sigma {privacy.noise_multiplier:g}, "
        f"q {privacy.sampling_rate:g}, {release.plan.steps} steps"
        + (f"; recomputed {'; '.join(costs)}" if costs else "")
    )


def _rounds_line(release: Release) -> str:
    facts = release.provenance
    sites = ", ".join(facts.get("sites", [])) or "not told"
    return (
        f"rounds: {facts.get('rounds', release.card.rounds)} of {release.plan.training.rounds}, "
        f"{facts.get('sites_count', len(release.card.sites))} sites ({sites}), "
        f"{len(facts.get('audits', []))} audits in the card"
    )


def _log_lines(
    release: Release, files: Mapping[str, bytes], listing: Listing | None, evidence: Path
) -> list[str]:
    if listing is None:
        return ["log: this folder holds no proofs (evidence/)"]
    try:
        data = (evidence / PROOFS).read_bytes()
    except OSError as error:
        raise ReleaseError(f"{evidence} lacks {PROOFS}: fetch the release again") from error
    head, proven = check_logged(release, files, listing, news_from_json(data))
    _check_own_log(release.provenance, release.plan.consortium, listing)
    kinds = [item.entry.kind for item in proven if item.entry.plan_hash == release.plan.hash]
    ledgers = [
        f"{item.entry.sites[0]} {item.entry.subject[:16]}…"
        for item in proven
        if item.entry.kind == "ledger"
    ]
    return [
        f"log: {head.size} entries, root {head.root}; proven to be in it: the plan, "
        f"{kinds.count('round')} rounds, this release",
        f"ledgers committed to: {', '.join(ledgers) or 'none yet'}",
    ]


def _check_own_log(facts: Mapping[str, Any], consortium: str, listing: Listing) -> None:
    """The log as it stood when the release was drafted, inside the signed bundle.

    Raises:
        LogError: its proofs do not lead to its head, or it was no head of the coordinator's.
    """
    own = facts.get("log")
    if own is None:
        return
    shown = news_from_json(_as_news(own))
    head = head_from_bytes(shown.head, consortium, listing.root.online)
    for entry in shown.entries:
        check_proven(entry, head)


def _as_news(own: Mapping[str, Any]) -> bytes:
    return json.dumps({"head": own.get("head"), "entries": own.get("entries")}).encode()
