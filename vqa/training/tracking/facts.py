"""What trackers show of a run besides its experiment: sizes, parameters, digests, code; and its checkpoint."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

import vqa
from vqa.errors import InputError
from vqa.experiment import Experiment
from vqa.features.cache.reader import FeatureCache
from vqa.files import read_json, sha256_file
from vqa.training.run_folder import RunFolder, git_commit, open_run
from vqa.training.tracking.protocol import Bundle
from vqa.training.tracking.summary import plain


def facts_of(
    folder: RunFolder,
    model: nn.Module,
    sizes: Mapping[str, int],
    caches: Sequence[FeatureCache],
    vocabulary_digest: str,
) -> dict[str, Any]:
    """What is known when a run begins.

    Args:
        sizes: of vocabularies, questions and features.
    """
    _, _, recorded = open_run(folder.path)
    environment = read_json(folder.path / "environment.json")
    return {
        "sizes": dict(sizes),
        "parameters": count_parameters(model),
        "digests": {
            "data": recorded["data"],
            "cache": {str(cache.path): cache_digest(cache) for cache in caches},
            "encoder_weights": recorded["features"]["weights_sha256"],
            "word_vectors": (recorded.get("word_vectors") or {}).get("sha256"),
            "question_encoder": (recorded.get("question_encoder") or {}).get("weights_sha256"),
            "vocabulary": vocabulary_digest,
        },
        "code": {
            "vqa": vqa.__version__,
            "vqa_commit": environment.get("git_commit"),
            "folder_commit": git_commit(Path.cwd()),
        },
        "machine": recorded["machine"],
    }


def count_parameters(model: nn.Module) -> dict[str, int]:
    """How many numbers a model has, in all, those that are trained, and those of each part."""
    parts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        parts[name.partition(".")[0]] += parameter.numel()
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return {"total": parts.total(), "trained": trained, **parts}


def cache_digest(cache: FeatureCache) -> str:
    """SHA-256 of what a feature cache says it holds: encoder, weights, preprocessing, and every image with its digest.

    The same description means the same features, and reading it takes no look at gigabytes of them.
    """
    stated = {key: value for key, value in cache.attributes.items() if key not in ("command", "batch_size")}
    content = [stated, cache.regions, cache.channels, [*cache.image_ids], [*cache.image_digests]]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def checkpoint_files(folder: RunFolder, experiment: Experiment, numbers: Mapping[str, Any]) -> Bundle:
    """A run's checkpoint: all that `vqa evaluate` and `vqa predict` need of it, and which features it was trained on.

    Raises:
        InputError: a file of it is missing.
    """
    paths = (folder.model, folder.vocabulary, folder.experiment, folder.seen, folder.path / "environment.json")
    if missing := [path for path in paths if not path.is_file()]:
        raise InputError(f"{missing[0]}: no such file, so the checkpoint cannot be kept")
    of_text = [path for path in sorted(folder.language_model.rglob("*")) if path.is_file()]
    files = {path.relative_to(folder.path).as_posix(): path for path in (*paths, *of_text)}
    name = f"{plain(experiment.name)}-{experiment.seed}-checkpoint"
    return Bundle(name, "model", files, {**numbers, "weights_sha256": sha256_file(folder.model)})


def cache_sources(facts: Mapping[str, Any]) -> dict[str, tuple[Path, str]]:
    """The feature caches of a run by file name: the path and the digest of each."""
    caches: Mapping[str, str] = facts.get("digests", {}).get("cache", {})
    return {Path(path).name: (Path(path), digest) for path, digest in caches.items()}
