"""Diplotypes by Hardy-Weinberg against published counts (case T03)."""

import json

import numpy as np
import pytest

from fedtwin_twins.trials.ancestry import built_in_frequencies, frequencies_of, parse_frequencies
from fedtwin_twins.trials.genotypes import Genotypes, draw_genotypes
from fedtwin_twins.trials.streams import Streams

from ..genes import SHARED

CASE = SHARED / "cases" / "pharmacology" / "T03_genotype_sampling.json"
N = 100_000


def drawn(gene: str, ancestry: str) -> Genotypes:
    streams = Streams(seed=11, replicates=(0,), first=0, count=N)
    return draw_genotypes([gene], [ancestry], np.zeros(N, dtype=np.int64), streams)[gene]


def shares(found: Genotypes) -> dict[str, float]:
    counts = np.bincount(found.index, minlength=len(found.diplotypes))
    return {name: 100 * count / N for name, count in zip(found.diplotypes, counts, strict=True)}


@pytest.mark.skipif(not CASE.is_file(), reason="the published cases are not here")
@pytest.mark.case("T03")
class TestPublished:
    def setup_method(self) -> None:
        self.case = json.loads(CASE.read_text())
        self.within = self.case["tolerance"]["abs_pct"]

    def test_cyp2c19_of_europeans(self) -> None:
        found = shares(drawn("CYP2C19", "EUR"))
        for name, share in self.case["expected"]["EUR_observed_CYP2C19_diplotypes_pct"].items():
            assert found[name] == pytest.approx(share, abs=self.within), name

    def test_cyp3a5_expressers(self) -> None:
        found = shares(drawn("CYP3A5", "EUR"))
        expressers = sum(share for name, share in found.items() if "*1" in name.split("/"))
        expected = self.case["expected"]["EUR_CYP3A5_expresser_pct_HWE"]
        assert expressers == pytest.approx(expected, abs=self.within)

    def test_vkorc1_of_east_asians(self) -> None:
        found = drawn("VKORC1", "EAS")
        share = 100 * (found.count("rs9923231 variant (T)") == 2).mean()
        expected = self.case["expected"]["EAS_VKORC1_AA_pct_HWE"]
        assert share == pytest.approx(expected, abs=self.within)

    def test_the_table_holds_the_cases_frequencies(self) -> None:
        names = {
            "VKORC1_A": ("VKORC1", "rs9923231 variant (T)"),
            "SLCO1B1_5": ("SLCO1B1", "*5"),
            "CYP2C9_2": ("CYP2C9", "*2"),
            "CYP3A5_3": ("CYP3A5", "*3"),
        }
        for ancestry in ("EUR", "EAS", "AFR"):
            given = dict(self.case["inputs"][ancestry])
            wanted = [("CYP2C19", name, share) for name, share in given.pop("CYP2C19").items()]
            wanted += [(*names[key], share) for key, share in given.items()]
            for gene, allele, share in wanted:
                table = frequencies_of(gene, ancestry)
                there = dict(zip(table.alleles, table.frequencies, strict=True))
                assert there.get(allele, 0.0) == pytest.approx(share, abs=1e-9), (gene, allele)


def test_every_gene_and_ancestry_adds_up_to_one() -> None:
    for table in built_in_frequencies().values():
        assert sum(table.frequencies) == pytest.approx(1, abs=1e-12)
        assert all(source for source in table.sources)


def test_cyp2d6_has_deletions_and_duplications() -> None:
    found = drawn("CYP2D6", "EUR")
    by_name = dict(
        zip(found.diplotypes, zip(found.phenotypes, found.scores, strict=True), strict=True)
    )
    assert by_name["*1/*5"] == ("Intermediate Metabolizer", 1.0)
    assert by_name["*4/*5"] == ("Poor Metabolizer", 0.0)
    assert by_name["*1/*1x2"] == ("Ultrarapid Metabolizer", 3.0)
    poor = 100 * np.mean([name == "Poor Metabolizer" for name in found.phenotype()])
    # Squared sum of *3, *4 and *5: (1.8 + 11.8 + 2.4 %)^2.
    assert poor == pytest.approx(2.56, abs=0.3)


def test_an_allele_that_is_not_in_the_table_is_never_normal() -> None:
    found = drawn("CYP2D6", "EAS")
    for name, phenotype in zip(found.diplotypes, found.phenotypes, strict=True):
        assert phenotype == "Indeterminate" or "unlisted" not in name


def test_a_mix_of_ancestries_draws_each_patient_from_their_own() -> None:
    index = np.arange(N) % 2
    streams = Streams(seed=11, replicates=(0,), first=0, count=N)
    found = draw_genotypes(["CYP3A5"], ["EUR", "AFR"], index, streams)["CYP3A5"]
    carriers = found.count("*3") > 0
    assert carriers[index == 0].mean() == pytest.approx(1 - 0.057**2, abs=0.01)
    assert carriers[index == 1].mean() == pytest.approx(1 - 0.82**2, abs=0.01)


def test_what_the_table_does_not_know_is_said() -> None:
    with pytest.raises(ValueError, match="say nothing about CYP2C19 in SAS: of CYP2C19 there are"):
        frequencies_of("CYP2C19", "SAS")
    with pytest.raises(ValueError, match="it has CYP2C19, CYP2C9"):
        frequencies_of("BRCA1", "EUR")


@pytest.mark.parametrize("rows", ["G,*2,EUR,0.7,s,\nG,*3,EUR,0.4,s,", "G,*1,EUR,0.5,s,"])
def test_frequencies_that_do_not_add_up_are_refused(rows: str) -> None:
    with pytest.raises(ValueError, match="G in EUR with sum 1"):
        parse_frequencies("gene,allele,ancestry,frequency,source,note\n" + rows)
