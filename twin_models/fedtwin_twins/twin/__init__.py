"""The twin's spine: what every twin model states, and what is asked of every twin."""
