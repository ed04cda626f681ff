"""A secure sum of 25 million numbers among ten sites of which three vanish: CPU time and bytes.

Every site's part and the coordinator's run the product's own code on real files, one after the
other in this process, so that CPU time can be told apart; a site's time is the dearest site's.
Scaling, rounding and masking are in it, drawing noise is not (the same in any kind of study).
Baselines: Flower 1.41 needs 162 ms a peer for the masks alone, 1.46 s with nine peers; for the
upload, the plain float32 model.
"""

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from figures import Figure

from fedtwin_client.node.secure_sums import SecureSums
from fedtwin_client.node.sum_desk import SumDesk
from fedtwin_client.training.masked_part import masked_part
from fedtwin_client.training.noise import SeededNoise
from fedtwin_protocol import secure_messages as sm
from fedtwin_protocol import sum_steps as steps
from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.content import content_bytes, make_content, ref_of
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.secure_terms import secure_terms, sum_label
from fedtwin_protocol.site_key import keep_site_key
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.exchange import Admit
from fedtwin_server.secure_collector import SecureCollector, SumWish
from fedtwin_server.store import Store

VALUES = 25_000_000
SITES = 10
VANISHED = 3
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def measure(options: argparse.Namespace) -> list[Figure]:
    """The three figures."""
    del options
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(Path(folder))
        bench.run(1)
        bench.run(2)  # the first one makes the files that later ones write over
        bench.close()
    site = max(bench.site_cpu.values())
    sent = max(bench.sent.values())
    return [
        Figure(
            id="secure-sum-site-cpu-s",
            value=round(site, 3),
            unit="s",
            baseline=0.162 * (SITES - 1),
            goal=0.3,
        ),
        Figure(
            id="secure-sum-coordinator-cpu-s",
            value=round(bench.total_cpu - sum(bench.site_cpu.values()), 3),
            unit="s",
            baseline=1.0,
            goal=1.0,
        ),
        Figure(
            id="secure-sum-upload-ratio",
            value=round(sent / (4 * VALUES), 5),
            unit="of 4 bytes a number",
            baseline=1.0,
            goal=1.02,
        ),
    ]


class _Bench:
    def __init__(self, folder: Path) -> None:
        names = [f"site-{number}" for number in range(SITES)]
        keys = {name: keep_site_key(folder / name) for name in names}
        self.plan = _plan({name: key.public for name, key in keys.items()})
        self.terms = secure_terms(self.plan)
        self.sums = {name: SecureSums(folder / f"{name}.db", name, keys[name]) for name in names}
        self.store, self.blobs = Store(folder / "store.db"), BlobStore(folder / "blobs")
        self.part = np.random.default_rng(0).normal(0, 0.01, VALUES).astype(np.float32)
        self.site_cpu: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.gone = set(names[:VANISHED])
        self.total_cpu = 0.0

    def run(self, number: int) -> None:
        """One sum; sites vanish after they have given shares, which costs most."""
        wish = SumWish(
            label=sum_label(self.plan, "train", number, self.terms.sites),
            purpose="train",
            terms=self.terms,
            content=pb.Content(),
            values=VALUES,
            largest=self.plan.privacy.clipping_norm,
        )
        collector = SecureCollector(self.store, self.blobs, self._ask)
        self.refs: list[bytes] = []
        self.site_cpu.clear()
        self.sent.clear()
        self.number = number
        began = time.process_time()
        summed = asyncio.run(collector.collect(wish, sorted(self.sums)))
        self.total_cpu = time.process_time() - began
        there = SITES - VANISHED
        worst = np.abs(summed.total - there * self.part.astype(np.float64)).max()
        self.blobs.recycle(self.refs)
        if worst > there * self.plan.privacy.clipping_norm / self.terms.scale:
            raise SystemExit(f"the sum is wrong by {worst}")

    def close(self) -> None:
        """Close the files."""
        for item in self.sums.values():
            item.shut()
        self.store.close()

    async def _ask(
        self, kind: str, contents: Mapping[str, pb.Content], admit: Admit, quorum: int
    ) -> dict[str, pb.Answer]:
        del quorum
        _, step = steps.step_of(kind)
        vanished = self.gone if step not in {steps.KEYS, steps.SHARES} else set()
        answers = {}
        for site in sorted(set(contents) - vanished):
            began = time.process_time()
            content = self._answer(
                site, step, pb.Task(kind=kind, round=self.number, content=contents[site])
            )
            self.site_cpu[site] += time.process_time() - began
            self.sent[site] += content.ByteSize() + content_bytes(content)
            answers[site] = pb.Answer(content=content)
            await admit(site, answers[site])
            if (ref := ref_of(content)) is not None:
                self.refs.append(ref.sha256)
        return answers

    def _answer(self, site: str, step: str, task: pb.Task) -> pb.Content:
        desk = SumDesk(self.sums[site])
        if step != steps.MASKED:
            return desk.step(task, self.plan, NOW)
        order = desk.mask_order(task, self.plan, NOW)
        masks = tuple([bytes.fromhex(key) for key in order[n]] for n in ("added", "subtracted"))
        clipping_norm = self.plan.privacy.clipping_norm
        numbers = masked_part(self.part, clipping_norm, 0.0, self.terms, SeededNoise(0), masks)
        return make_content(Payload(arrays={"arrays": {sm.PART: numbers}}), self.blobs)


def _plan(keys: Mapping[str, str]) -> StudyPlan:
    value: dict[str, Any] = {
        "study": "large-sum",
        "consortium": "bench",
        "title": "A large sum",
        "purpose": "To be timed",
        "cohort": {"index": {"codes": ["BENCH//visit"]}},
        "features": [{"name": "age", "kind": "age", "unit": "a"}],
        "endpoint": {"name": "x", "kind": "event", "codes": ["BENCH//x"], "horizon_days": 1},
        "model": {"family": "network", "hidden": [10]},
        "training": {"rounds": 1, "learning_rate": 1.0},
        "evaluation": {"unjudged": True},
        "privacy": {
            "mode": "secure",
            "epsilon": 10,
            "delta": 1e-5,
            "clipping_norm": 1.0,
            "noise_multiplier": 1.0,
            "scale_bits": 16,
            "modulus_bits": 32,
        },
        "sites": {"quorum": 7, "invited": sorted(keys), "keys": keys, "largest_cohort": 2000},
    }
    return StudyPlan.model_validate(value)
