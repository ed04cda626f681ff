"""For researchers: fetch, verify, ask."""
