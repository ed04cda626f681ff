"""Many people's scores at once are those of one genotype after another, and so is the account."""

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.records.genome import polygenic
from fedtwin_client.records.genome.genotype_columns import SampleColumns
from fedtwin_client.records.genome.polygenic import (
    PolygenicOptions,
    PolygenicScores,
    _alleles,
    _frequencies,
)
from fedtwin_client.records.genome.score_files import Score
from fedtwin_client.records.genome.variant_files import VcfRecord
from fedtwin_client.records.genome.variants import read_call
from fedtwin_client.records.people import People, Person
from fedtwin_client.records.reading import UnusableError
from fedtwin_protocol.errors import RecordError
from fedtwin_twins.genes.polygenic import (
    Palindromes,
    RunningScore,
    UnmatchedError,
    copies_of_effect,
)

from .genomes import desk, line, write
from .test_polygenic_files import BARE, COLUMNS, HEAD, score_file

FORMATS = ("GT", "GT:AD:DP", "GT:DP:FT", "GT:FT:AD:PS", "DP:GT", "GT:GT", "GT:GQ")
CALLS = ("0/0", "0/1", "1|0", "1/1", "0|2", "2/2", "./.", ".", "0", "1", "./1", "0/1/1", "3/0", "x")
FREQUENCIES = ("AF=0.2", "AF=0.9", "AF=0.48", "AF=0.2,0.1", ".")


class SlowSums:
    """A `RunningScore` for each person."""

    def __init__(self) -> None:
        self.sums: dict[Any, RunningScore] = {}

    def rows(self, persons: Sequence[Any]) -> list[RunningScore]:
        return [self.sums.setdefault(person, RunningScore()) for person in persons]

    def of(self, person: Any) -> RunningScore:
        return self.sums[person]


class Slow(PolygenicScores):
    """One genotype after another."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._sums: Any = SlowSums()

    def _add(self, record: VcfRecord, samples: SampleColumns, rows: Any, score: Score) -> None:
        for cell, total in zip(samples._take(record.samples), rows, strict=True):
            self._add_one(record, cell, total, score)

    def _add_one(self, record: VcfRecord, cell: str, total: RunningScore, score: Score) -> None:
        try:
            call = read_call(record, cell, least_depth=0)
        except UnusableError as error:
            self._desk.reading.unusable(error, record.place, record.raw)
            return
        if None in call.numbers:
            self._tally.skip("only one of two chromosomes was read", record.place)
            return
        for number, variant in score.variants[(record.chromosome, record.position)]:
            single = len(variant.effect) == 1 and len(variant.other or "A") == 1
            alleles = _alleles(record, single)
            lengths = {len(text) for text in (record.reference, *record.alternatives) if text > "@"}
            if variant.other is None and len(lengths) > 1 and variant.effect == alleles[0][:1]:
                reason = "the score does not name the other allele, and the VCF has a length"
                self._tally.skip(f"{score.identifier}: {reason}", record.place)
                continue
            copies = {text: 0 for text in alleles if text.isalpha()}
            for index in call.numbers:
                copies[alleles[index or 0]] += 1
            try:
                told = copies_of_effect(
                    variant, copies, self._options.palindromes, _frequencies(record, alleles)
                )
            except UnmatchedError as error:
                self._tally.skip(f"{score.identifier}: {error}", record.place)
                continue
            total.add(number, variant, told)


def outcome(
    kind: type[PolygenicScores], files: Any, score: Path, people: People, options: PolygenicOptions
) -> Any:
    quarantine = score.parent / f"{kind.__name__}.ndjson"
    open_desk = desk(quarantine)
    tally = open_desk.reading.tally
    try:
        source = kind(files, score, people, options, open_desk)
        said: Any = [(one.origin, list(one.events)) for one in source.versions()]
    except RecordError as error:
        said = str(error)
    tally.close()
    aside = sorted(quarantine.read_text().splitlines()) if quarantine.exists() else []
    quarantine.unlink(missing_ok=True)
    return said, tally.read, tally.reasons, tally.notes, tally.examples, aside


def made_up(draw: random.Random, folder: Path) -> tuple[list[Path], Path, People]:
    bases = "ACGT"
    rows, places = [], []
    for position in range(100, 112):
        effect, other = draw.sample([*bases, "AT", "ATT"], 2)
        places.append((position, effect, other))
        named = other if draw.random() < 0.8 else ""
        frequency = draw.choice(["0.2", "0.7", ""])
        rows.append(f"r\t{effect}\t{named}\t{draw.uniform(-1, 1)}\t1\t{position}\t{frequency}")
    head = HEAD + COLUMNS.rstrip("\n") + "\tallelefrequency_effect\n"
    samples = [f"S{number}" for number in range(6)]
    files = []
    for number in range(2):
        lines = []
        for _ in range(18):
            position, *alleles = draw.choice(places)
            draw.shuffle(alleles)
            reference, alternative = alleles
            alternative = draw.choice([alternative, f"{alternative},G", "T", ".", "<DEL>"])
            form = draw.choice(FORMATS)
            cells = [
                ":".join(draw.choice(
                    CALLS if key == "GT" else ["PASS", "q10", ".", "3,0", "2,5", "7"]
                ) for key in form.split(":"))
                for _ in samples
            ]  # fmt: skip
            fields = {"format": form, "info": draw.choice(FREQUENCIES)}
            lines.append(line("chr1", position, reference, alternative, "\t".join(cells), **fields))
        chosen = "\t".join(samples)
        files.append(write(folder, lines, header=BARE, samples=chosen, name=f"{number}.vcf"))
    whose = [Person(patient=str(n % 5), date="2026-01-02") for n in range(draw.randint(1, 6))]
    people = People(
        by_sample=dict(zip(draw.sample(samples, len(whose)), whose, strict=True)), system="urn:mrn"
    )
    return files, score_file(folder, rows, head), people


@pytest.mark.parametrize("seed", range(60))
def test_any_cohort_has_the_scores_of_one_genotype_after_another(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    files, score, people = made_up(draw, tmp_path)
    options = PolygenicOptions(palindromes=draw.choice(list(Palindromes)), least_coverage=0.0)
    slow = outcome(Slow, files, score, people, options)
    assert outcome(PolygenicScores, files, score, people, options) == slow
    assert slow[2]


def test_a_cohort_is_read_ten_times_as_fast(tmp_path: Path) -> None:
    draw = random.Random(1)
    cells = [[draw.choice(("0/0", "0/1", "1/1")) for _ in range(400)] for _ in range(20)]
    lines = [line("chr1", n, "G", "A", "\t".join(cells[n % 20])) for n in range(100, 250)]
    samples = [f"S{number}" for number in range(400)]
    file = write(tmp_path, lines, header=BARE, samples="\t".join(samples))
    score = score_file(tmp_path, [f"r\tA\tG\t0.{n}\t1\t{n}" for n in range(100, 250)])
    people = People(
        by_sample={name: Person(patient=name, date="2026-01-02") for name in samples},
        system="urn:mrn",
    )

    def took(kind: type[PolygenicScores]) -> float:
        began = time.process_time()
        kind([file], score, people, PolygenicOptions(), desk())._read(
            file, polygenic.read_score(score, desk().reading.tally)
        )
        return time.process_time() - began

    assert min(took(PolygenicScores) for _ in range(3)) * 10 < took(Slow)
