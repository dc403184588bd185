"""What is kept about populations across runs, beside the private data and never in Git."""
