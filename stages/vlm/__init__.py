"""Vision-language model families: where vision features enter, token pruning, loss per row."""
