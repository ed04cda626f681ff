"""Drugs: published models, one a file, each with its equations and their source."""
