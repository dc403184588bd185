"""Families of vision-language models, one module each."""
