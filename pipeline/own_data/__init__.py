"""``dualpriv init``: a user's records and model become ``params.yaml``."""
