"""Models of transformers that answer questions about pictures, asked in the same way and judged in the same tables."""
