"""Hand the fine-tuned model on, to people who have transformers and not this project."""
