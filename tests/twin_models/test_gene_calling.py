"""Diplotypes from genotypes; expected calls are those of PharmCAT's own documentation and tests."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_twins.genes.calling import HALF_CALL, MIXED, NO_COVERAGE, NO_FIT, ONE_OF_TWO, call_gene
from fedtwin_twins.genes.genotypes import Genotype
from fedtwin_twins.genes.tables import built_in_tables

from .genes import call

NORMAL_2C19 = {"rs3758581": "G/G"}  # *1; GRCh38 itself has *38 there


@pytest.mark.parametrize(
    ("gene", "variants", "diplotype", "phenotype"),
    [
        ("CYP2C19", {}, "*38/*38", "Normal Metabolizer"),
        ("CYP2C19", NORMAL_2C19, "*1/*1", "Normal Metabolizer"),
        (
            "CYP2C19",
            {**NORMAL_2C19, "rs12769205": "A/G", "rs4244285": "G/A"},
            "*1/*2",
            "Intermediate Metabolizer",
        ),
        # *1/*4 has more defining positions than *4/*17.
        (
            "CYP2C19",
            {**NORMAL_2C19, "rs12248560": "C/T", "rs28399504": "A/G"},
            "*1/*4",
            "Intermediate Metabolizer",
        ),
        ("CYP2C9", {"rs1799853": "C/T", "rs1057910": "A/C"}, "*2/*3", "Poor Metabolizer"),
        ("CYP3A5", {"rs776746": "T/C"}, "*1/*3", "Intermediate Metabolizer"),
        ("VKORC1", {"rs9923231": "C/T"}, None, "-1639 AG"),
        ("TPMT", {"rs1800460": "C/T", "rs1142345": "T/C"}, "*1/*3A", "Intermediate Metabolizer"),
        # Unphased *80 and *28 are taken to lie together (7 positions against 2).
        ("UGT1A1", {"rs887829": "C/T", "rs3064744": "CAT/CATAT"}, "*1/*80+*28", None),
        ("UGT1A1", {"rs887829": "C|T", "rs3064744": "CATAT|CAT"}, "*28/*80", "Indeterminate"),
        ("UGT1A1", {"rs4148323": "A/A"}, "*6/*6", "Poor Metabolizer"),
        ("SLCO1B1", {"rs2306283": "A/G", "rs4149056": "T/C"}, "*1/*15", "Decreased Function"),
        ("CYP2B6", {"rs3745274": "G/T", "rs2279343": "A/G"}, "*1/*6", "Intermediate Metabolizer"),
        ("NUDT15", {"rs116855232": "C/T"}, "*1/*3", "Intermediate Metabolizer"),
        ("CYP4F2", {}, "*1/*1", None),
    ],
)
def test_named_alleles(
    gene: str, variants: dict[str, str], diplotype: str | None, phenotype: str | None
) -> None:
    found = call(gene, **variants)
    if diplotype is not None:
        assert found.name == diplotype
    assert found.meaning is not None
    if phenotype is not None or gene == "CYP4F2":
        assert found.meaning.phenotype == phenotype


def test_an_iupac_letter_that_meets_the_reference_does_not_count() -> None:
    """PharmCAT's example 2: *2/*2 scores 6 of 8, for *2 has an R at rs58973490."""
    two = {"rs12769205": "G/G", "rs4244285": "A/A", **NORMAL_2C19}
    assert (call("CYP2C19", **two).name, call("CYP2C19", **two).score) == ("*2/*2", 6)
    assert call("CYP2C19", **two, rs58973490="A/A").score == 8


def test_strands_decide_between_pairs() -> None:
    """TPMT *3A is both variants on one strand; on two strands they are *3B and *3C."""
    assert call("TPMT", rs1800460="C|T", rs1142345="T|C").name == "*1/*3A"
    assert call("TPMT", rs1800460="C|T", rs1142345="C|T").name == "*3B/*3C"
    assert call("TPMT", rs1800460="C|T@1", rs1142345="C|T@2").name == "*1/*3A"
    assert call("TPMT", rs1800460="C|T@1", rs1142345="C|T@1").name == "*3B/*3C"


def test_what_is_not_covered_is_not_the_reference() -> None:
    """Definitions shrink to what is covered, and several pairs may then fit as well."""
    two = {"rs12248560": "C/T", **NORMAL_2C19}
    found = call("CYP2C19", "rs28399504", **two)
    assert found.diplotypes == ("*1/*17", "*1/*4")
    assert found.meaning is not None
    assert found.meaning.phenotype == "Indeterminate"
    assert len(found.missing) == 1


@pytest.mark.parametrize(
    ("gene", "missing", "hidden"),
    [
        ("CYP2C19", "rs4244285 rs12769205", "*2"),
        ("CYP2C19", "rs12248560", "*17"),
        ("CYP2C9", "rs1057910", "*3"),
        ("SLCO1B1", "rs4149056", "*5"),
        ("UGT1A1", "rs3064744", "*28"),
        ("DPYD", "rs3918290", "c.1905+1G>A (*2A)"),
        ("DPYD", "rs75017182 rs56038477", "HapB3"),
    ],
)
def test_no_phenotype_where_an_important_allele_could_hide(
    gene: str, missing: str, hidden: str
) -> None:
    found = call(gene, missing)
    assert found.meaning is not None
    assert found.meaning.phenotype == "Indeterminate"
    assert found.meaning.activity_score is None
    assert hidden in " ".join(found.remarks)


def test_a_phenotype_stays_where_only_rare_alleles_could_hide() -> None:
    found = call("CYP2C9", "rs28371685")
    assert found.meaning is not None
    assert found.meaning.phenotype == "Indeterminate", "*11 is of tier 1"
    found = call("CYP2C9", "rs72558193")
    assert found.meaning is not None
    assert found.meaning.phenotype == "Normal Metabolizer"
    assert found.missing


@pytest.mark.parametrize(
    ("gene", "variants", "refusal"),
    [
        ("CYP2C19", {"rs4244285": "./A"}, HALF_CALL),
        ("CYP2C19", {"rs4244285": "G/?"}, NO_FIT),
        ("CYP2C19", {"rs4244285": "G"}, ONE_OF_TWO),
        ("CYP2C9", {"rs1799853": "T/T", "rs1057910": "C/C"}, NO_FIT),
        ("G6PD", {"rs1050828": "C", "rs5030868": "G/A"}, MIXED),
        ("CYP2D6", {}, "is called from its copy numbers"),
    ],
)
def test_no_call_says_why(gene: str, variants: dict[str, str], refusal: str) -> None:
    found = call(gene, **variants)
    assert found.diplotypes == ()
    assert found.meaning is None
    assert (found.refusal or "").startswith(refusal)
    assert call_gene(built_in_tables()[gene], {}).meaning is None
    if gene != "CYP2D6":
        assert call_gene(built_in_tables()[gene], {}).refusal == NO_COVERAGE


@pytest.mark.parametrize(
    ("gene", "variants", "names"),
    [
        # The three examples of PharmCAT's documentation, and one of its CYP2C19 page.
        ("CYP2C9", {"rs1799853": "T/T", "rs1057910": "A/C"}, {"*2/[*2 + *3]"}),
        (
            "CYP2C9",
            {"rs1799853": "C/T", "rs72558193": "A/C"},
            {"*1/[*2 + g.94986073A>C]", "*2/g.94986073A>C"},
        ),
        ("CYP2B6", {"rs12721655": "A|G", "rs3745274": "G|T"}, {"*1/[*8 + *9]"}),
        (
            "CYP2C19",
            {
                **NORMAL_2C19,
                "rs12769205": "A|G",
                "rs4244285": "A|A",
                "rs12248560": "T|C",
            },
            {"*2/[*17 + g.94781859G>A]"},
        ),
    ],
)
def test_combinations_are_named_on_request_and_mean_nothing(
    gene: str, variants: dict[str, str], names: set[str]
) -> None:
    assert call(gene, **variants).refusal == NO_FIT
    found = call(gene, combinations=True, **variants)
    assert set(found.diplotypes) == names
    assert found.meaning is not None
    assert found.meaning.phenotype == "Indeterminate"


def test_a_pair_of_named_alleles_goes_before_combinations() -> None:
    """Unphased *8 and *9 may lie on two strands, and that has a name."""
    found = call("CYP2B6", combinations=True, rs12721655="A/G", rs3745274="G/T")
    assert found.name == "*8/*9"


def test_undocumented_bases_are_the_reference_only_for_toxicity_genes() -> None:
    found = call("DPYD", rs3918290="C/?")
    assert found.name == "Reference/Reference"
    assert found.undocumented
    assert call("TPMT", rs1142345="T/?").name == "*1/*1"
    assert call("CYP3A5", rs776746="T/?").refusal == NO_FIT


def test_one_position_of_slco1b1_gives_the_phenotype_where_no_diplotype_fits() -> None:
    found = call("SLCO1B1", rs4149056="T/C", rs2306283="A/?")
    assert found.name == "rs4149056 T/rs4149056 C"
    assert found.meaning is not None
    assert found.meaning.phenotype == "Decreased Function"
    assert call("SLCO1B1", rs4149056="T/?", rs2306283="A/?").refusal == NO_FIT


def test_one_x_chromosome() -> None:
    """A man's G6PD is one allele, even where a caller wrote some positions twice."""
    table = built_in_tables()["G6PD"]
    one = {locus.position: Genotype((locus.reference,)) for locus in table.loci}
    found = call_gene(table, one)
    assert (found.name, found.meaning and found.meaning.phenotype) == ("B (reference)", "Normal")
    one[154536002] = Genotype(("T", "T"))
    one[154535277] = Genotype(("C",))
    found = call_gene(table, one)
    assert found.name == "A- 202A_376G"
    assert found.meaning is not None
    assert found.meaning.phenotype == "Deficient"


@pytest.mark.parametrize(
    ("variants", "name", "score"),
    [
        ({}, "Reference/Reference", 2.0),
        ({"rs67376798": "T/A"}, "Reference/c.2846A>T", 1.5),
        ({"rs3918290": "C|T", "rs1801159": "T|C"}, None, 1.0),
        # Two variants on one strand leave the other one whole; on two strands they do not.
        ({"rs3918290": "C|T", "rs67376798": "T|A"}, None, 1.0),
        ({"rs3918290": "C|T", "rs67376798": "A|T"}, None, 0.5),
        ({"rs3918290": "C/T", "rs67376798": "T/A"}, None, 0.5),
        ({"rs3918290": "T/T", "rs67376798": "T/A"}, None, 0.0),
    ],
)
def test_dpyd_by_the_lowest_of_each_strand(
    variants: dict[str, str], name: str | None, score: float
) -> None:
    found = call("DPYD", **variants)
    assert name is None or found.name == name
    assert found.meaning is not None
    assert found.meaning.activity_score == score


HAPB3 = "c.1129-5923C>G, c.1236G>A (HapB3)"


@pytest.mark.parametrize(
    ("variants", "missing", "name", "score"),
    [
        ({"rs75017182": "G/C", "rs56038477": "C/T"}, "", f"Reference/{HAPB3}", 1.5),
        ({"rs75017182": "G/C"}, "", "Reference/c.1129-5923C>G", 1.5),
        ({"rs56038477": "C/T"}, "", "Reference/Reference", 2.0),
        ({"rs56038477": "C/T"}, "rs75017182", f"Reference/{HAPB3}", 1.5),
        ({"rs75017182": "C/C", "rs56038477": "C/T"}, "", f"c.1129-5923C>G/{HAPB3}", 1.0),
        ({"rs75017182": "C/C", "rs56038477": "T/T"}, "", f"{HAPB3}/{HAPB3}", 1.0),
        ({"rs75017182": "G/C"}, "rs56038477", "Reference/c.1129-5923C>G", 1.5),
    ],
)
def test_the_intronic_variant_decides_hapb3(
    variants: dict[str, str], missing: str, name: str, score: float
) -> None:
    found = call("DPYD", missing, **variants)
    assert found.name == name
    assert found.meaning is not None
    assert found.meaning.activity_score == score


def test_dpyd_with_strands_known_in_part() -> None:
    """PharmCAT's phaseSet_lowFunctionsOnSameStrand: both low ones share a strand, so 1.0."""
    found = call(
        "DPYD",
        rs72549310="G|A@1",
        rs75017182="G|C@1",
        rs56038477="C|T@1",
        rs1801159="T|C@2",
    )
    assert found.meaning is not None
    assert found.meaning.activity_score == 1.0
    assert found.name.count(" OR ") == 1
    apart = call("DPYD", rs72549310="G/A", rs75017182="G/C", rs56038477="C/T", rs1801159="T/C")
    assert apart.meaning is not None
    assert apart.meaning.activity_score == 0.5
    assert " AND " in apart.name


GENES = sorted(gene for gene, table in built_in_tables().items() if table.loci)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_genotypes_give_a_call_or_a_reason(data: st.DataObject) -> None:
    """And swapping unphased alleles changes nothing."""
    table = built_in_tables()[data.draw(st.sampled_from(GENES))]
    chosen = data.draw(st.lists(st.sampled_from(table.loci), max_size=8, unique=True))
    covered = data.draw(st.sampled_from([table.loci, tuple(chosen)]))
    given_ = {locus.position: Genotype((locus.reference,) * 2) for locus in covered}
    for locus in chosen:
        bases = st.sampled_from([locus.reference, *locus.alternatives, "?", None])
        alleles = tuple(data.draw(st.tuples(bases, bases)))
        given_[locus.position] = Genotype(alleles, data.draw(st.booleans()))
    combinations = data.draw(st.booleans())
    found = call_gene(table, given_, combinations=combinations)
    assert (found.meaning is None) == (found.refusal is not None)
    assert (found.meaning is None) == (not found.diplotypes)
    turned = {
        position: item if item.phased else Genotype(item.alleles[::-1])
        for position, item in given_.items()
    }
    other = call_gene(table, turned, combinations=combinations)
    assert (other.diplotypes, other.meaning) == (found.diplotypes, found.meaning)
