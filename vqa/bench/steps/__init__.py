"""Training steps and batches, ours and the usual ways, timed."""
