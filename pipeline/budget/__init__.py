"""The command ``dualpriv budget``: what a training run would cost and reach, before anything is spent."""
