"""The command ``dualpriv compare``: every method on the same records under one accountant."""
