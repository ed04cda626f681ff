"""The coordinator: membership, rounds, aggregation, releases."""
