"""Variants, ready calls of genes and polygenic scores, into events."""
