"""Drugs: published models as cards, and what genes, organs and other drugs do to them."""
