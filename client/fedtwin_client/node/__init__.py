"""The agent: link, policy, ledger and the worker it starts."""
