"""Tables of the hospital's own, by its mapping, into events."""
