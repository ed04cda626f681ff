"""The hospital's node: records, timelines, cohorts, private training, ledger."""
