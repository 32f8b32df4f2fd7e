"""Models of transformers that answer questions about images, asked in the same way and judged in the same tables."""
