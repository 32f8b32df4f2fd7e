"""Transformer layers, and language models inside a fusion."""
