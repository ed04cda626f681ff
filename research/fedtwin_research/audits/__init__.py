"""Repeating the audits of a release, as far as that is possible without the sites' data."""
