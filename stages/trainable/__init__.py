"""Which weights learn: each kind attaches to a frozen model and saves what plain libraries load."""
