"""Private training at the site."""
