"""What parties say to one another: plans, messages, identity, signatures, releases."""
