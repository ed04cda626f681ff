"""The hospital's timelines on disk."""
