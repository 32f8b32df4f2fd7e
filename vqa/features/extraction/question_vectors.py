"""What a frozen language model says of questions, computed once for every distinct question.

A cache is a folder of HDF5 files, each with some thousand questions, written whole or not at all; whatever is computed
stays when the process dies. Its name holds a digest of the model's weights and of its tokenizer, so a changed model
never meets another's vectors. Format: `features_cache/README.md`.

Legend: `Q` questions of a file or table, `P` their rows one below another, `N` questions of a split, `B` batch, `T`
tokens, `D` width.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from vqa.errors import InputError
from vqa.features.cache.attributes import reading
from vqa.features.cache.schema import stored_dataset
from vqa.features.encoders.text_encoders import TextEncoder
from vqa.files import atomic_write
from vqa.locks import lock
from vqa.models.question_encoders.pretrained import frozen_vectors
from vqa.progress import progress_bar
from vqa.runtime.transfer import to_device

FORMAT_VERSION = 1
QUESTIONS_A_FILE = 4096
QUESTIONS_AT_ONCE = 128  # through the model


@dataclass(frozen=True)
class QuestionVectors:
    """The vectors of a split's questions, one below another.

    Attributes:
        packed_PD: float16; of each question one row with what the model calls pooled, then one a token.
        start_N: int64, each question's first row, on the same device.
    """

    packed_PD: Tensor
    start_N: Tensor

    def take(self, rows_M: Tensor) -> "QuestionVectors":
        """Those of some of the questions."""
        return replace(self, start_N=self.start_N[rows_M.to(self.start_N.device)])

    def to(self, device: torch.device) -> "QuestionVectors":
        """The same on another device, unless its memory has less than twice the room."""
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if free < 2 * self.packed_PD.nbytes:
                return self
        return QuestionVectors(self.packed_PD.to(device), self.start_N.to(device))

    def gather(self, index_B: Tensor, length_B: Tensor, longest: int) -> Tensor:
        """Some questions' vectors, float16 `[B, 1 + longest, D]`, zeros where padded.

        Args:
            index_B: int64, on the device of the vectors.
            length_B: int64, their tokens, on any device.
            longest: tokens to fill up to.
        """
        place_T = torch.arange(1 + longest, device=self.packed_PD.device)
        padded_BT = place_T > to_device(length_B, place_T.device)[:, None]
        row_BT = (self.start_N[index_B][:, None] + place_T).masked_fill(padded_BT, 0)
        # twice as fast on a CPU as indexing with two dimensions
        vectors_BTD = self.packed_PD.index_select(0, row_BT.flatten()).view(*row_BT.shape, -1)
        return vectors_BTD.masked_fill_(padded_BT[:, :, None], 0.0)


def cached_vectors(
    text_encoder: TextEncoder,
    questions: Sequence[str],
    encoded: Sequence[Sequence[int]],
    folder: Path,
    device: torch.device,
) -> QuestionVectors:
    """The frozen model's vectors of distinct questions, from the cache below `folder`; the others are added to it.

    Args:
        text_encoder: the model.
        questions: distinct.
        encoded: their tokens.
        folder: where the caches of all models lie.
        device: where to compute what is not there yet.

    Raises:
        InputError: a file of the cache is damaged, the disk is full, or the vectors do not fit float16.
    """
    keys = [_key(question) for question in questions]
    kept = folder / _name(text_encoder)
    found = _index(kept, text_encoder.transformer.width)
    missing = list({key: place for place, key in enumerate(keys) if key not in found}.values())
    if missing:
        # without a lock the work is done twice at the worst: files are written whole
        with lock(kept / ".lock", required=False):
            found = _index(kept, text_encoder.transformer.width)  # another process may have been faster
            missing = sorted((i for i in missing if keys[i] not in found), key=lambda i: (len(encoded[i]), keys[i]))
            _compute(text_encoder, [keys[i] for i in missing], [encoded[i] for i in missing], kept, device)
        found = _index(kept, text_encoder.transformer.width)
    return _load(found, keys, text_encoder.transformer.width)


def _key(question: str) -> str:
    """A question as HDF5 can hold it whatever is in it: ASCII, the rest written as JSON does."""
    return json.dumps(question)[1:-1]


def _name(text_encoder: TextEncoder) -> str:
    """The cache's folder: readable, and different for different weights or tokens."""
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", Path(text_encoder.name.removeprefix("hf:")).name)
    identity = [FORMAT_VERSION, text_encoder.weights_sha256, text_encoder.tokenizer_sha256, text_encoder.longest]
    return f"{readable}-{hashlib.sha256(json.dumps(identity).encode('ascii')).hexdigest()[:12]}"


def _index(kept: Path, width: int) -> dict[str, tuple[Path, int, int]]:
    """Of every question in the cache its file, first row and end."""
    found: dict[str, tuple[Path, int, int]] = {}
    for path in sorted(kept.glob("*.h5")):
        faults: list[str] = []
        with reading("damaged", faults), h5py.File(path, "r", locking=False) as file:
            size = path.stat().st_size
            question, start, vectors = (
                stored_dataset(file, name, size, faults) for name in ("question", "start", "vectors")
            )
            if question is None or start is None or vectors is None:
                faults.append("it lacks /question, /start or /vectors")
            else:
                texts, start_Q = question.asstr()[:].tolist(), start[:]
                fitting = start_Q.dtype == np.int64 and vectors.dtype == np.dtype("<f2")
                if not fitting or len(start_Q) != len(texts) + 1 or vectors.shape != (start_Q[-1], width):
                    faults.append("its data sets do not fit each other")
                elif start_Q[0] != 0 or (np.diff(start_Q) < 1).any():
                    faults.append("/start does not rise from 0")
        if faults:
            raise InputError(f"{path}: {faults[0]}; remove it, and what it held is computed anew when it is needed")
        found |= {text: (path, int(start_Q[i]), int(start_Q[i + 1])) for i, text in enumerate(texts)}
    return found


def _compute(
    text_encoder: TextEncoder, keys: list[str], encoded: list[Sequence[int]], kept: Path, device: torch.device
) -> None:
    """Run the model over questions, shortest first, and write them file by file."""
    text_encoder.transformer.to(device)
    with progress_bar() as bar:
        task = bar.add_task(f"questions through {text_encoder.name}", total=len(keys), note="")
        for first in range(0, len(keys), QUESTIONS_A_FILE):
            chosen = slice(first, first + QUESTIONS_A_FILE)
            rows: list[np.ndarray] = []
            for start in range(first, min(first + QUESTIONS_A_FILE, len(keys)), QUESTIONS_AT_ONCE):
                batch = encoded[start : min(start + QUESTIONS_AT_ONCE, first + QUESTIONS_A_FILE)]
                rows += _run(text_encoder, batch, device)
                bar.update(task, completed=start + len(batch))
            _write(kept, text_encoder, keys[chosen], rows)
    text_encoder.transformer.to("cpu")


def _run(text_encoder: TextEncoder, encoded: Sequence[Sequence[int]], device: torch.device) -> list[np.ndarray]:
    """One batch: for each question float16 `[1 + tokens, D]`."""
    lengths = [len(tokens) for tokens in encoded]
    tokens_BT = torch.zeros(len(encoded), max(lengths), dtype=torch.int64)
    for row, tokens in enumerate(encoded):
        tokens_BT[row, : len(tokens)] = torch.tensor(tokens)
    vectors_BPD = frozen_vectors(text_encoder.transformer, tokens_BT.to(device), torch.tensor(lengths)).cpu()
    if not vectors_BPD.isfinite().all():
        raise InputError(f"{text_encoder.name}: outputs are not finite in float16; use the model with tuned: true")
    return [row[: 1 + length].numpy() for row, length in zip(vectors_BPD, lengths, strict=True)]


def _write(kept: Path, text_encoder: TextEncoder, keys: list[str], rows: list[np.ndarray]) -> None:
    """One file of the cache, atomically, named by what is in it."""
    import transformers

    name = hashlib.sha256(json.dumps(keys).encode("ascii")).hexdigest()[:24]
    encoded = [key.encode("ascii") for key in keys]
    with atomic_write(kept / f"{name}.h5", "w+b") as opened, h5py.File(opened, "w") as file:
        file.attrs.update(
            format_version=FORMAT_VERSION, encoder=text_encoder.name, weights_sha256=text_encoder.weights_sha256,
            tokenizer_sha256=text_encoder.tokenizer_sha256, longest=text_encoder.longest,
            torch=str(torch.__version__), transformers=transformers.__version__,
        )  # fmt: skip
        file["question"] = np.array(encoded, dtype=h5py.string_dtype("utf-8", max(1, *map(len, encoded))))
        file["start"] = np.cumsum([0, *map(len, rows)])
        file["vectors"] = np.concatenate(rows)


def _load(found: dict[str, tuple[Path, int, int]], keys: Sequence[str], width: int) -> QuestionVectors:
    """The rows of some questions out of the files, each file read once."""
    places = [found[key] for key in keys]
    length_N = np.array([end - start for _, start, end in places], dtype=np.int64)
    start_N = np.cumsum(length_N) - length_N
    packed_PD = torch.empty(int(length_N.sum()), width, dtype=torch.float16)
    of_file: dict[Path, list[int]] = {}
    for number, (path, _, _) in enumerate(places):
        of_file.setdefault(path, []).append(number)
    for path, numbers in of_file.items():
        with h5py.File(path, "r", locking=False) as file:
            stored_PD = torch.from_numpy(file["vectors"][:])
        for number in numbers:
            _, start, end = places[number]
            packed_PD[start_N[number] : start_N[number] + end - start] = stored_PD[start:end]
    return QuestionVectors(packed_PD, torch.from_numpy(start_N))
