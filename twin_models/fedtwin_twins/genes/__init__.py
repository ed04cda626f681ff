"""Pharmacogenes and polygenic scores: from genotypes to diplotypes, phenotypes and sums."""
