"""What people read of a finished run: one page, and the card that goes with the adapter."""
