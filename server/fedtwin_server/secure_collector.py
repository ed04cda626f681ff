"""A secure sum among sites, step by step: the coordinator's side.

Who took a step is written to the store when the step is over, before anybody is asked for the next
one; after a restart the same sites are asked the same things, and answer with the same bytes. At
every step those who do not answer are left behind, as long as `threshold` sites go on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtwin_protocol import secure_messages as sm
from fedtwin_protocol import sum_steps as steps
from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.content import read_content
from fedtwin_protocol.secure_terms import SecureTerms
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.exchange import Admit
from fedtwin_server.secure_steps import admit_step
from fedtwin_server.store import Store
from fedtwin_server.unmasking import Rebuilder, remaining_masks, unmasked_sum

AskStep = Callable[[str, Mapping[str, pb.Content], Admit, int], Awaitable[Mapping[str, pb.Answer]]]
Answers = Mapping[str, pb.Answer]


@dataclass(frozen=True, kw_only=True, slots=True)
class SumWish:
    """One sum that is wanted.

    Attributes:
        label: its name.
        purpose: the kind of task it answers: `train`, `query.cohort`, `evaluate`.
        terms: what holds for it.
        content: the round's model, for the step in which parts are made.
        values: numbers in the sum.
        largest: a patient's largest contribution, C.
    """

    label: str
    purpose: str
    terms: SecureTerms
    content: pb.Content
    values: int
    largest: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Summed:
    """A sum, and whose parts are in it."""

    total: NDArray[np.float64]
    sites: tuple[str, ...]


class SecureCollector:
    """Collects sums.

    Args:
        store: where the steps are written down.
        blobs: contents.
        ask: sends a kind of task to sites, with its admission and the answers that are needed.
    """

    def __init__(self, store: Store, blobs: BlobStore, ask: AskStep) -> None:
        self._store = store
        self._blobs = blobs
        self._ask = ask

    async def collect(self, wish: SumWish, present: Sequence[str]) -> Summed:
        """Carry one sum through its five steps.

        Args:
            wish: the sum.
            present: sites that are here; the first step waits for those alone.

        Raises:
            WireError: fewer sites than `threshold` can take a step.
        """
        keys = await self._keys(wish, present)
        sealed = await self._shares(wish, keys)
        parts = await self._parts(wish, sealed)
        signatures = await self._confirm(wish, sorted(parts))
        shares = await self._unmask(wish, sorted(parts), signatures)
        # In a thread of its own: many values, or many wrong shares, must hold nobody else up.
        total = await asyncio.to_thread(self._unmasked, wish, keys, sorted(sealed), parts, shares)
        return Summed(total=total, sites=tuple(sorted(parts)))

    async def _keys(self, wish: SumWish, present: Sequence[str]) -> dict[str, sm.Fields]:
        contents = dict.fromkeys(present, pb.Content())
        answers = await self._step(wish, steps.KEYS, contents, wish.terms.sites)
        return {site: sm.fields_of(answer.content) for site, answer in answers.items()}

    async def _shares(
        self, wish: SumWish, keys: Mapping[str, sm.Fields]
    ) -> dict[str, dict[str, bytes]]:
        """What each site sealed, by receiver."""
        sites = sorted(keys)
        fields: dict[str, Any] = {"sites": sites}
        for name in ("mask", "channel", "commitment"):
            fields[name] = [keys[site][name] for site in sites]
        fields["signatures"] = [keys[site]["signature"] for site in sites]
        contents = dict.fromkeys(sites, sm.content_of(fields))
        sealed = {}
        for site, answer in (await self._step(wish, steps.SHARES, contents, sites)).items():
            given = sm.fields_of(answer.content)
            to = [name for name in sites if name != site]
            sealed[site] = dict(zip(to, sm.raws(given, "sealed", len(to)), strict=True))
        return sealed

    async def _parts(
        self, wish: SumWish, sealed: Mapping[str, Mapping[str, bytes]]
    ) -> dict[str, pb.Content]:
        contents = {}
        for site in sorted(sealed):
            senders = [sender for sender in sorted(sealed) if sender != site]
            boxes = [sealed[sender][site] for sender in senders]
            contents[site] = sm.with_fields(wish.content, {"senders": senders, "sealed": boxes})
        answers = await self._step(wish, steps.MASKED, contents, sorted(sealed))
        return {site: answer.content for site, answer in answers.items()}

    async def _confirm(self, wish: SumWish, survivors: list[str]) -> dict[str, bytes]:
        contents = dict.fromkeys(survivors, sm.content_of({"survivors": survivors}))
        answers = await self._step(wish, steps.CONFIRM, contents, survivors)
        return {
            site: sm.raw(sm.fields_of(answer.content), "signature", 64)
            for site, answer in answers.items()
        }

    async def _unmask(
        self, wish: SumWish, survivors: list[str], signatures: Mapping[str, bytes]
    ) -> dict[str, dict[str, bytes]]:
        """What each site gave: a share of every site, by whose it is."""
        signers = sorted(signatures)
        fields: dict[str, Any] = {"signers": signers}
        fields["signatures"] = [signatures[signer] for signer in signers]
        contents = dict.fromkeys(survivors, sm.content_of(fields))
        given = {}
        for site, answer in (await self._step(wish, steps.UNMASK, contents, survivors)).items():
            found = sm.fields_of(answer.content)
            sites = sm.names(found, "sites", wish.terms.sites, 1)
            given[site] = dict(zip(sites, sm.raws(found, "shares", len(sites)), strict=True))
        return given

    async def _step(
        self, wish: SumWish, step: str, contents: Mapping[str, pb.Content], before: Sequence[str]
    ) -> Answers:
        """Take a step, or recall the answers to one that was over before a restart."""
        kind = steps.kind_of(wish.purpose, step)
        over = self._store.step_sites(wish.label, step)
        if over is not None:
            asked = {site: content for site, content in contents.items() if site in over}
        else:
            asked = dict(contents)
        admit = admit_step(step, wish.label, wish.terms, before, wish.values)
        answers = await self._ask(kind, asked, admit, wish.terms.threshold)
        if over is None:
            self._store.keep_step(wish.label, step, sorted(answers))
        return answers

    def _unmasked(
        self,
        wish: SumWish,
        keys: Mapping[str, sm.Fields],
        sharing: Sequence[str],
        parts: Mapping[str, pb.Content],
        shares: Mapping[str, Mapping[str, bytes]],
    ) -> NDArray[np.float64]:
        rebuilder = Rebuilder(shares, wish.terms)

        def secret(site: str) -> bytes:
            survived = site in parts
            public = sm.raw(keys[site], "commitment" if survived else "mask", 32)
            return rebuilder.secret(site, public, survived=survived)

        seeds = {site: secret(site) for site in sorted(parts)}
        vanished = {site: secret(site) for site in sharing if site not in parts}
        publics = {site: sm.raw(keys[site], "mask", 32) for site in sorted(parts)}
        masks = remaining_masks(wish.label, seeds, vanished, publics)
        arrays = [
            read_content(parts[site], self._blobs).arrays["arrays"][sm.PART]
            for site in sorted(parts)
        ]
        return unmasked_sum(arrays, masks, wish.largest, wish.terms)
