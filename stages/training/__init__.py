"""The training loop and what it is made of: estimators, update pruning, optimizer, checkpoint, trace."""
