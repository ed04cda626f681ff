"""How fit the hospital's records are for a study: counts, gates over them, and what is shown."""
