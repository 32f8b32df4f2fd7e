"""vqa: train, ablate and evaluate visual question answering models on cached image features."""

__version__ = "0.2.0"
