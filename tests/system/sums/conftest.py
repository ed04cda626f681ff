"""Sites and a coordinator of secure sums in one process, with every message in between at hand."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtwin_client.node.secure_sums import SecureSums
from fedtwin_client.node.sum_desk import SumDesk
from fedtwin_client.training.masked_part import masked_part
from fedtwin_client.training.noise import SeededNoise
from fedtwin_protocol import secure_messages as sm
from fedtwin_protocol import sum_steps as steps
from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.content import make_content
from fedtwin_protocol.errors import FedtwinError, WireError
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.secure_terms import SecureTerms, secure_terms, sum_label
from fedtwin_protocol.site_key import SiteKey, keep_site_key
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.exchange import Admit
from fedtwin_server.secure_collector import SecureCollector, Summed, SumWish
from fedtwin_server.store import Store

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Change = Callable[[str, str, pb.Task], pb.Task | None]
Twist = Callable[[str, str, pb.Content], pb.Content | None]


def plan_among(sites: Mapping[str, str], **privacy: Any) -> StudyPlan:
    """A secure plan that names sites with their keys; `largest_cohort` goes to its sites."""
    largest = privacy.pop("largest_cohort", 1000)
    numbers = {"epsilon": 10.0, "delta": 1e-5, "clipping_norm": 2.0, "noise_multiplier": 3.0}
    return StudyPlan.model_validate(
        {
            "study": "sums",
            "consortium": "demo",
            "title": "A sum",
            "purpose": "To be added up",
            "cohort": {"index": {"codes": ["TEST//visit"]}},
            "features": [{"name": "age", "kind": "age", "unit": "a"}],
            "endpoint": {
                "name": "outcome",
                "kind": "event",
                "codes": ["TEST//outcome"],
                "horizon_days": 30,
            },
            "model": {"family": "logistic_regression"},
            "training": {"rounds": 3, "learning_rate": 1.0},
            "privacy": {"mode": "secure", **numbers, **privacy},
            "evaluation": {"unjudged": True},
            "sites": {
                "quorum": 1,
                "invited": sorted(sites),
                "keys": dict(sites),
                "largest_cohort": largest,
            },
        }
    )


@dataclass
class Consortium:
    """Sites, and a coordinator that asks them.

    Attributes:
        sums: each site's part.
        plan: what they agreed to.
        parts: the exact numbers of each site.
        silent: for each step, sites that do not answer it.
        change: what a dishonest coordinator makes of a task; none: it is not sent.
        twist: what a dishonest site makes of its answer; none: it does not answer.
        seen: every answer the coordinator got, by kind and site.
        faults: what sites refused, by step and site.
    """

    folder: Path
    keys: dict[str, SiteKey]
    plan: StudyPlan
    parts: dict[str, np.ndarray]
    silent: dict[str, set[str]] = field(default_factory=dict)
    change: Change | None = None
    twist: Twist | None = None
    seen: dict[tuple[str, str], pb.Content] = field(default_factory=dict)
    faults: dict[tuple[str, str], FedtwinError] = field(default_factory=dict)
    sums: dict[str, SecureSums] = field(default_factory=dict)
    seed: int = 1
    number: int = 1

    def __post_init__(self) -> None:
        self.blobs = BlobStore(self.folder / "blobs")
        self.store = Store(self.folder / "coordinator.sqlite")
        for site in self.keys:
            self.open(site)

    @property
    def terms(self) -> SecureTerms:
        return secure_terms(self.plan)

    def open(self, site: str) -> None:
        """Start a site, or start it again."""
        if site in self.sums:
            self.sums[site].shut()
        self.sums[site] = SecureSums(self.folder / f"{site}.sqlite", site, self.keys[site])

    def shut(self) -> None:
        for item in self.sums.values():
            item.shut()
        self.store.close()

    def task(self, kind: str, content: pb.Content, number: int = 1) -> pb.Task:
        task = pb.Task(study="sums", round=number, kind=kind, content=content)
        task.plan_hash = bytes.fromhex(self.plan.hash)
        return task

    def answer(self, site: str, task: pb.Task) -> pb.Content:
        """What a site answers; a masked part without a model, of its given numbers."""
        desk = SumDesk(self.sums[site])
        _, step = steps.step_of(task.kind)
        if step != steps.MASKED:
            return desk.step(task, self.plan, NOW)
        order = desk.mask_order(task, self.plan, NOW)
        masks = tuple([bytes.fromhex(key) for key in order[n]] for n in ("added", "subtracted"))
        self.seed += 1
        privacy = self.plan.privacy
        numbers = masked_part(
            self.parts[site],
            privacy.clipping_norm,
            privacy.noise_multiplier,
            self.terms,
            SeededNoise(self.seed),
            masks,
        )
        return make_content(Payload(arrays={"arrays": {sm.PART: numbers}}), self.blobs)

    async def ask(
        self, kind: str, contents: Mapping[str, pb.Content], admit: Admit, quorum: int
    ) -> dict[str, pb.Answer]:
        """One step among the sites that are there."""
        _, step = steps.step_of(kind)
        answers = {}
        for site, content in contents.items():
            if site in self.silent.get(step, ()):
                continue
            try:
                found = self._one(site, step, self.task(kind, content, self.number))
                if found is None:
                    continue
                self.seen[step, site] = found
                answer = pb.Answer(content=found)
                await admit(site, answer)
                answers[site] = answer
            except FedtwinError as error:
                self.faults[step, site] = error
        if len(answers) < quorum:
            raise WireError(f"{len(answers)} of {quorum} answers at step {step}")
        return answers

    def _one(self, site: str, step: str, task: pb.Task) -> pb.Content | None:
        asked = self.change(site, step, task) if self.change else task
        if asked is None:
            return None
        found = self.answer(site, asked)
        return self.twist(site, step, found) if self.twist else found

    def run(self, number: int = 1) -> Summed:
        """One sum, to its end."""
        self.number = number
        wish = SumWish(
            label=sum_label(self.plan, "train", number, self.terms.sites),
            purpose="train",
            terms=self.terms,
            content=pb.Content(),
            values=next(iter(self.parts.values())).size,
            largest=self.plan.privacy.clipping_norm,
        )
        collector = SecureCollector(self.store, self.blobs, self.ask)
        return asyncio.run(collector.collect(wish, sorted(self.keys)))


@pytest.fixture
def sites(tmp_path: Path) -> Any:
    """Makes consortia of so many sites with so many numbers each; all are shut at the end."""
    made: list[Consortium] = []

    def make(count: int, values: int = 20, **privacy: Any) -> Consortium:
        folder = tmp_path / str(len(made))
        names = [f"site-{number:03d}" for number in range(count)]
        keys = {name: keep_site_key(folder / name) for name in names}
        rng = np.random.default_rng(count)
        plan = plan_among({name: key.public for name, key in keys.items()}, **privacy)
        parts = {name: rng.normal(0, 10, values) for name in names}
        made.append(Consortium(folder=folder, keys=keys, plan=plan, parts=parts))
        return made[-1]

    yield make
    for item in made:
        item.shut()
