"""A site's part in secure sums: its keys, what it was told, and the one answer it gives.

Everything that decides is taken from the signed plan (`SecureTerms`); a message only says who is
there. Guarantees, whatever the coordinator sends:
1. keys, shares and seeds of one sum are made once and used for that sum alone;
2. a peer's keys count only with the signature of the key that the plan names for it;
3. a part is made for one task; another task that asks for one of the same sum is refused;
4. a set of survivors is confirmed once; a second, different one is refused;
5. shares are given once, only for a set that this site confirmed and at least t sites signed, and
   of each site either the seed's or the mask key's, never both.

The secrets lie in a file of their own until the sum is over, so that a node that is restarted goes
on where it was, and are erased then: what was recorded on the network stays closed for ever.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedtwin_client.node.database import Database
from fedtwin_client.node.ledger_chain import spell_time
from fedtwin_protocol import secure_messages as sm
from fedtwin_protocol.errors import PolicyError, WireError
from fedtwin_protocol.masks import KEY_BYTES, agree, pair_mask_key, self_mask_key
from fedtwin_protocol.secret_sharing import SHARE_BYTES, split
from fedtwin_protocol.secure_messages import Fields
from fedtwin_protocol.secure_terms import SecureTerms
from fedtwin_protocol.site_key import SiteKey, check_site_signature

log = logging.getLogger("fedtwin.sums")
NONCE_BYTES: Final = 12
_SCHEMA: Final = """
PRAGMA secure_delete = ON;
CREATE TABLE IF NOT EXISTS sums (
    label TEXT PRIMARY KEY, plan_hash TEXT NOT NULL, state TEXT NOT NULL, changed TEXT NOT NULL);
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskKeys:
    """Keys of the masks that a site's part is hidden under.

    Attributes:
        own: of the mask that the site alone knows; added.
        added: of masks shared with other sites that this site adds.
        subtracted: of those that it takes off.
    """

    own: bytes
    added: tuple[bytes, ...]
    subtracted: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sum:
    """Which sum is meant.

    Attributes:
        label: its name, from the plan, the purpose and the round.
        plan_hash: of its plan.
        terms: what holds for it.
    """

    label: str
    plan_hash: str
    terms: SecureTerms


class SecureSums:
    """All sums that this site takes part in.

    Args:
        path: of the file with their secrets.
        site: this site's name.
        key: its signing key.

    Attributes:
        site: this site's name.
    """

    def __init__(self, path: Path, site: str, key: SiteKey) -> None:
        self.site = site
        self._key = key
        self._database = Database(
            path,
            schema=_SCHEMA,
            what="the file of secure sums",
            consequence="Nothing was sent",
        )

    @property
    def public_key(self) -> str:
        """The public half of this site's signing key, base64."""
        return self._key.public

    def shut(self) -> None:
        """Close the file."""
        self._database.close()

    def keys(self, which: Sum, now: datetime) -> Fields:
        """Step 1: two fresh public keys, signed; the same ones if they are asked for again.

        Raises:
            PolicyError: the plan does not name this site with its own key.
        """
        if which.terms.key(self.site) != self._key.public:
            raise PolicyError(
                "the plan names another signing key for this hospital than the one it holds: the "
                "consortium must sign a new version of the plan, or somebody else answers for it"
            )
        state = self._load(which)
        if state is None:
            state = {
                "mask": os.urandom(KEY_BYTES).hex(),
                "channel": os.urandom(KEY_BYTES).hex(),
                "seed": os.urandom(KEY_BYTES).hex(),
            }
            self._end_others(which, now)
            self._save(which, state, now)
        mask, channel, commitment = _shown(state)
        body = sm.keys_body(which.label, self.site, mask, channel, commitment)
        signature = self._key.sign(sm.KEYS_PURPOSE, body)
        return {
            "mask": mask,
            "channel": channel,
            "commitment": commitment,
            "signature": signature,
        }

    def shares(self, which: Sum, fields: Fields, now: datetime) -> Fields:
        """Step 2: a sealed pair of shares for every other site that gave keys.

        Raises:
            WireError: too few sites, or this one is not among them.
            SignatureError: a site's keys were not signed by it.
            PolicyError: other keys were shown for this sum before.
        """
        terms, state = which.terms, self._known(which)
        sites = sm.names(fields, "sites", terms.sites, terms.threshold)
        peers = self._checked_peers(which, fields, sites, state)
        if state.get("peers", peers) != peers:
            raise PolicyError("other keys were shown for this sum before")
        if "given" not in state:
            holders = [terms.number(site) for site in sites]
            seeds = split(_bytes(state, "seed"), terms.threshold, holders)
            keys = split(_bytes(state, "mask"), terms.threshold, holders)
            given = {}
            for site in sites:
                pair = seeds[terms.number(site)] + keys[terms.number(site)]
                given[site] = pair.hex()
            state |= {"peers": peers, "given": given}
            self._save(which, state, now)
        others = [site for site in sites if site != self.site]
        sealed = [self._seal(which, state, site) for site in others]
        return {"to": others, "sealed": sealed}

    def mask_keys(self, which: Sum, fields: Fields, task: str, now: datetime) -> MaskKeys:
        """Step 3: open what the others sealed for this site; keys of this site's masks.

        They are given for one task alone. Two parts of one sum would lie under the same masks, so
        that their difference would show what this site alone has sent.

        Shares that a site did not seal for this one and this sum are left aside: it must not stop
        the others, who hold enough without them.

        Raises:
            WireError: too few sites, or one that gave no keys.
            PolicyError: other shares were shown for this sum before, or another task asked for a
                part of it.
        """
        terms, state = which.terms, self._known(which)
        if state.get("part_for", task) != task:
            raise PolicyError("a part of this sum was asked for before, by another task")
        if "given" not in state:
            raise WireError("a part was asked for before shares were exchanged")
        others = [site for site in state["peers"] if site != self.site]
        senders = sm.names(fields, "senders", others, terms.threshold - 1)
        sealed = sm.raws(fields, "sealed", len(senders))
        received = {
            sender: self._open(which, state, sender, box)
            for sender, box in zip(senders, sealed, strict=True)
        }
        received[self.site] = state["given"][self.site]
        if state.get("received", received) != received:
            raise PolicyError("other shares were shown for this sum before")
        state |= {"received": received, "part_for": task}
        self._save(which, state, now, flushed=True)
        pairs = {
            site: pair_mask_key(
                _bytes(state, "mask"),
                bytes.fromhex(state["peers"][site][0]),
                which.label,
                self.site,
                site,
            )
            for site in senders
        }
        return MaskKeys(
            own=self_mask_key(_bytes(state, "seed"), which.label),
            added=tuple(key for site, key in pairs.items() if site > self.site),
            subtracted=tuple(key for site, key in pairs.items() if site < self.site),
        )

    def confirm(self, which: Sum, fields: Fields, now: datetime) -> Fields:
        """Step 4: a signature over the set of sites whose parts came in.

        Raises:
            WireError: too few sites, or this one is not among them.
            PolicyError: another set was confirmed before.
        """
        state = self._known(which)
        if "received" not in state:
            raise WireError("a set was to be confirmed before parts were sent")
        allowed = sorted(state["received"])
        survivors = sm.names(fields, "survivors", allowed, which.terms.threshold)
        if self.site not in survivors:
            raise WireError("this site's part is not in the set that it should confirm")
        if state.get("survivors", survivors) != survivors:
            raise PolicyError("another set of sites was shown for this sum before")
        self._save(which, state | {"survivors": survivors}, now, flushed=True)
        body = sm.set_body(which.label, survivors)
        return {"signature": self._key.sign(sm.SET_PURPOSE, body)}

    def unmask(self, which: Sum, fields: Fields, now: datetime) -> Fields:
        """Step 5: one share of every site that took part; the secrets of the sum end here.

        Raises:
            WireError: no set was confirmed, or too few sites signed it.
            SignatureError: a signature is of another set.
            PolicyError: shares of this sum were given before.
        """
        terms, state = which.terms, self._known(which)
        survivors = state.get("survivors")
        if survivors is None:
            raise WireError("shares were asked for before a set was confirmed")
        signers = sm.names(fields, "signers", survivors, terms.threshold)
        signatures = sm.raws(fields, "signatures", len(signers))
        body = sm.set_body(which.label, survivors)
        for signer, signature in zip(signers, signatures, strict=True):
            check_site_signature(terms.key(signer), sm.SET_PURPOSE, body, signature, signer)
        sites = sorted(site for site, pair in state["received"].items() if pair)
        shares = []
        for site in sites:
            pair = bytes.fromhex(state["received"][site])
            shares.append(pair[:SHARE_BYTES] if site in survivors else pair[SHARE_BYTES:])
        self._save(which, {"over": True}, now)
        return {"sites": sites, "shares": shares}

    def forget(self, plan_hash: str) -> None:
        """Erase what is left of a study that has ended."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM sums WHERE plan_hash = ?", (plan_hash,))

    def _end_others(self, which: Sum, now: datetime) -> None:
        """Erase the secrets of the plan's earlier sums, which the new one shows to be over."""
        with self._database.transaction(flushed=False) as connection:
            connection.execute(
                "UPDATE sums SET state = ?, changed = ? WHERE plan_hash = ?",
                (json.dumps({"over": True}), spell_time(now), which.plan_hash),
            )

    def _checked_peers(
        self, which: Sum, fields: Fields, sites: Sequence[str], state: Mapping[str, Any]
    ) -> dict[str, list[str]]:
        """Everybody's public keys, each under the signature of its site."""
        columns = ("mask", "channel", "commitment", "signatures")
        peers = {}
        for site, *shown, signature in zip(
            sites, *(sm.raws(fields, name, len(sites)) for name in columns), strict=True
        ):
            body = sm.keys_body(which.label, site, *shown)
            check_site_signature(which.terms.key(site), sm.KEYS_PURPOSE, body, signature, site)
            peers[site] = [item.hex() for item in shown]
        if peers.get(self.site) != [item.hex() for item in _shown(state)]:
            raise WireError("this site's own keys are not among those that were shown")
        return peers

    def _seal(self, which: Sum, state: Mapping[str, Any], site: str) -> bytes:
        """This site's shares for another; sealed anew each time, with a fresh nonce."""
        key, label = self._channel(which, state, site, sending=True)
        nonce = os.urandom(NONCE_BYTES)
        pair = bytes.fromhex(state["given"][site])
        return nonce + AESGCM(key).encrypt(nonce, pair, label.encode())

    def _open(self, which: Sum, state: Mapping[str, Any], sender: str, box: bytes) -> str:
        """A pair of shares in hexadecimal; empty if it was not sealed by the sender for this."""
        key, label = self._channel(which, state, sender, sending=False)
        try:
            pair = AESGCM(key).decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], label.encode())
        except (InvalidTag, ValueError):
            pair = b""
        if len(pair) != 2 * SHARE_BYTES:
            log.warning("the shares that came as %s's are not ones it sealed for this site", sender)
            return ""
        return pair.hex()

    def _channel(
        self, which: Sum, state: Mapping[str, Any], site: str, *, sending: bool
    ) -> tuple[bytes, str]:
        ends = (self.site, site) if sending else (site, self.site)
        label = sm.sealing(which.label, *ends)
        public = bytes.fromhex(state["peers"][site][1])
        try:
            return agree(_bytes(state, "channel"), public, label), label
        except ValueError as error:
            raise WireError(f"the keys of {site} cannot be used") from error

    def _known(self, which: Sum) -> dict[str, Any]:
        state = self._load(which)
        if state is None:
            raise WireError("this sum was never begun here, or its secrets were lost")
        return state

    def _load(self, which: Sum) -> dict[str, Any] | None:
        with self._database.explained():
            row = self._database.connection.execute(
                "SELECT state FROM sums WHERE label = ?", (which.label,)
            ).fetchone()
        if row is None:
            return None
        state: dict[str, Any] = json.loads(row[0])
        if "over" in state:
            raise PolicyError("this sum is over here: its shares were given, and are given once")
        return state

    def _save(
        self, which: Sum, state: Mapping[str, Any], now: datetime, *, flushed: bool = False
    ) -> None:
        """Keep the state; what must not be lost with the power is what is done once.

        After any other loss the sum ends for this site, as if it had vanished.
        """
        with self._database.transaction(flushed=flushed) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO sums (label, plan_hash, state, changed)"
                " VALUES (?, ?, ?, ?)",
                (which.label, which.plan_hash, json.dumps(state), spell_time(now)),
            )


def _bytes(state: Mapping[str, Any], name: str) -> bytes:
    return bytes.fromhex(state[name])


def _shown(state: Mapping[str, Any]) -> tuple[bytes, bytes, bytes]:
    """What others see: the two public keys, and what binds this site to its seed."""
    return (
        _public(_bytes(state, "mask")),
        _public(_bytes(state, "channel")),
        sm.commitment_to(_bytes(state, "seed")),
    )


def _public(private: bytes) -> bytes:
    key = X25519PrivateKey.from_private_bytes(private).public_key()
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
