"""Generated message classes, version 1."""
