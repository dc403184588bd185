"""``dualpriv sweep``: one run for every point of a grid, under one ledger."""
