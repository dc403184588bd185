"""Image-text records: rows, readers of what users have, shards of what the trainer eats."""
