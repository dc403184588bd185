"""Which weights learn: each kind attaches to a frozen model and saves an adapter that plain libraries load."""
