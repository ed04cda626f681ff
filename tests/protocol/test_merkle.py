"""The log's tree against RFC 6962, its proofs, and what must not pass for one."""

import hashlib

import pytest

from fedtwin_protocol.errors import LogError
from fedtwin_protocol.merkle import (
    EMPTY_ROOT,
    MerkleTree,
    check_consistency,
    check_inclusion,
    inner_hash,
    leaf_hash,
)

# Entries and roots of the reference tests of Certificate Transparency
# (github.com/google/certificate-transparency, merkletree/merkle_tree_test.cc).
ENTRIES = [
    bytes.fromhex(text)
    for text in (
        *("", "00", "10", "2021", "3031", "40414243"),
        *("5051525354555657", "606162636465666768696a6b6c6d6e6f"),
    )
]
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
LEAVES = [leaf_hash(bytes([number])) for number in range(40)]
TREE = MerkleTree(LEAVES)


def root_by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word by word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return inner_hash(root_by_definition(leaves[:split]), root_by_definition(leaves[split:]))


def test_roots_are_those_of_the_reference_and_of_the_definition() -> None:
    tree = MerkleTree()
    assert tree.root() == EMPTY_ROOT
    for entry, root in zip(ENTRIES, ROOTS, strict=True):
        tree.append(leaf_hash(entry))
        assert tree.root().hex() == root
    for size in range(len(LEAVES) + 1):
        assert TREE.root(size) == root_by_definition(LEAVES[:size])


def test_every_entry_is_proven_and_no_other_passes_for_it() -> None:
    for size in range(1, len(LEAVES) + 1):
        root = TREE.root(size)
        for index in range(size):
            proof = TREE.inclusion_proof(index, size)
            check_inclusion(LEAVES[index], index, size, proof, root)
            cases = [
                (leaf_hash(b"other"), index, proof),
                (LEAVES[index], index, [*proof, EMPTY_ROOT]),
            ]
            if size > 1:
                cases.append((LEAVES[index], (index + 1) % size, proof))
            for leaf, place, steps in cases:
                with pytest.raises(LogError):
                    check_inclusion(leaf, place, size, steps, root)


def test_every_growth_is_proven_and_no_rewriting_passes_for_growth() -> None:
    for new in range(1, len(LEAVES) + 1):
        for old in range(new + 1):
            proof = TREE.consistency_proof(old, new)
            check_consistency(old, new, proof, TREE.root(old), TREE.root(new))
            if old > 0:
                forged = MerkleTree([leaf_hash(b"forged"), *LEAVES[1:new]])
                with pytest.raises(LogError):
                    check_consistency(
                        old, new, forged.consistency_proof(old, new), TREE.root(old), forged.root()
                    )


def test_a_log_that_was_cut_off_or_has_no_proof_is_refused() -> None:
    with pytest.raises(LogError, match="was cut off"):
        check_consistency(5, 4, [], TREE.root(5), TREE.root(4))
    with pytest.raises(LogError, match="two different roots"):
        check_consistency(5, 5, [], TREE.root(5), TREE.root(6))
    for proof in ([], [b"short"], [EMPTY_ROOT] * 70, TREE.consistency_proof(5, 9)[:-1]):
        with pytest.raises(LogError):
            check_consistency(5, 9, proof, TREE.root(5), TREE.root(9))


def test_proofs_stay_short() -> None:
    tree = MerkleTree([leaf_hash(number.to_bytes(4, "big")) for number in range(100_000)])
    assert len(tree.inclusion_proof(77_777, 100_000)) <= 17
    assert len(tree.consistency_proof(77_777, 100_000)) <= 18
