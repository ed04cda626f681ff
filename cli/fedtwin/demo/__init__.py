"""The demo: everybody on one machine, with synthetic hospitals or the four of the UCI heart set."""
