"""Drugs: what genes, organs and other drugs do to them, and what may go wrong."""
