"""A patient in a file, and the twin that answers for them."""
