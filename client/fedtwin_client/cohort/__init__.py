"""From timelines to the rows that a study may learn from."""
