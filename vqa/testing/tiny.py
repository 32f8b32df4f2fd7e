"""Something to try functions with, made in a few seconds: a synthetic data set, features, the smallest experiment."""

from os import PathLike
from pathlib import Path
from typing import Any

from vqa.data.synthetic import generate_dataset
from vqa.progress import quietly

IMAGES, PIXELS = 60, 32
ENCODER: dict[str, Any] = {"name": "squeezenet1_1", "layer": "features.4", "image_size": PIXELS, "weights": "random"}


def tiny_experiment(folder: str | PathLike[str]) -> dict[str, Any]:
    """Make `folder`/data in VQA v2's files and `folder`/features.h5, and return an experiment over them.

    What is there already is kept. The image encoder has random weights, so nothing is downloaded and nothing is learnt
    that is worth anything.

    Returns:
        The experiment as plain values, for `vqa.train` or, written as YAML, `vqa train`; its runs land in
        `folder`/runs.
    """
    from vqa.features.extraction.dataset import EncoderOptions, ExtractOptions, extract_dataset

    root, cache = Path(folder) / "data", Path(folder) / "features.h5"
    with quietly():
        generate_dataset(root, IMAGES, seed=0, size=PIXELS)
        options = ExtractOptions(
            number_type="float32", compiled=False, workers=1, command="vqa.testing.tiny_experiment"
        )
        extract_dataset(root, "vqa_v2", ["train", "val"], cache, EncoderOptions(**ENCODER), options)
    return {
        "name": "tiny",
        "runs": str(Path(folder) / "runs"),
        "data": {"format": "vqa_v2", "root": str(root)},
        "features": {"cache": str(cache)},
        "question_encoder": {"name": "lstm", "embedding_dim": 8, "hidden_dim": 8, "layers": 1, "sentence_dim": 12},
        "fusion": {"name": "stacked_attention", "hops": 1, "attention_dim": 8},
        "training": {"epochs": 1, "batch_size": 64, "precision": "float32", "device": "cpu"},
    }
