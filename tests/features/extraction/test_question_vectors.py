"""The cache of a frozen language model's outputs: right, once for every distinct question, safe when killed."""

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from helpers.language import save_language_model

from vqa.errors import InputError
from vqa.features.encoders.text_encoders import TextEncoder, hf_text_encoder
from vqa.features.extraction import question_vectors
from vqa.features.extraction.question_vectors import QuestionVectors, cached_vectors
from vqa.locks import lock
from vqa.models.question_encoders.pretrained import frozen_vectors

CPU = torch.device("cpu")
QUESTIONS = ["what is the color of the cats", "how many", "a", "ä \x00 \u4e2d?", 'is "there" a red\\circle', ""]


@pytest.fixture
def text_encoder(tmp_path: Path) -> TextEncoder:
    save_language_model(tmp_path / "model")
    return hf_text_encoder(f"hf:{tmp_path / 'model'}")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many questions went through the model, batch by batch."""
    counts: list[int] = []

    def counted(transformer: Any, tokens_BT: torch.Tensor, length_B: torch.Tensor) -> torch.Tensor:
        counts.append(len(tokens_BT))
        return frozen_vectors(transformer, tokens_BT, length_B)

    monkeypatch.setattr(question_vectors, "frozen_vectors", counted)
    return counts


def cached(text_encoder: TextEncoder, folder: Path, questions: list[str] = QUESTIONS) -> QuestionVectors:
    return cached_vectors(text_encoder, questions, text_encoder.encode_all(questions), folder, CPU)


def check(vectors: QuestionVectors, text_encoder: TextEncoder, questions: list[str] = QUESTIONS) -> None:
    """Every question's rows are what the model says of it alone."""
    encoded = text_encoder.encode_all(questions)
    lengths = torch.tensor([len(tokens) for tokens in encoded])
    longest = int(lengths.max()) + 2
    index_B = torch.arange(len(questions)).flip(0)
    vectors_BPD = vectors.gather(index_B, lengths[index_B], longest)
    assert vectors_BPD.dtype == torch.float16 and vectors_BPD.shape == (len(questions), 1 + longest, 16)
    for row, question in enumerate(index_B.tolist()):
        length = lengths[question : question + 1]
        alone_1PD = frozen_vectors(text_encoder.transformer, torch.tensor([encoded[question]]), length)
        torch.testing.assert_close(vectors_BPD[row, : 1 + int(length)], alone_1PD[0], atol=4e-3, rtol=4e-3)
        assert not vectors_BPD[row, 1 + int(length) :].any()


def test_vectors_are_the_models_and_computed_once(text_encoder: TextEncoder, tmp_path: Path, ran: list[int]) -> None:
    check(cached(text_encoder, tmp_path / "kept"), text_encoder)
    assert sum(ran) == len(QUESTIONS)
    check(cached(text_encoder, tmp_path / "kept"), text_encoder)
    assert sum(ran) == len(QUESTIONS)
    more = ["how many cats", *QUESTIONS[::-1], "red ?"]
    check(cached(text_encoder, tmp_path / "kept", more), text_encoder, more)
    assert sum(ran) == len(QUESTIONS) + 2


def test_what_was_computed_before_a_kill_is_kept(
    text_encoder: TextEncoder, tmp_path: Path, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(question_vectors, "QUESTIONS_A_FILE", 2)
    monkeypatch.setattr(question_vectors, "QUESTIONS_AT_ONCE", 2)

    def dies(*_: object) -> None:
        if len(ran) == 3:
            raise KeyboardInterrupt

    dying = text_encoder.transformer.register_forward_pre_hook(dies)
    with pytest.raises(KeyboardInterrupt):
        cached(text_encoder, tmp_path / "kept")
    dying.remove()
    assert ran == [2, 2, 2] and len(list((tmp_path / "kept").rglob("*.h5"))) == 2
    check(cached(text_encoder, tmp_path / "kept"), text_encoder)
    assert ran == [2, 2, 2, 2]  # the third was lost, and is done again alone
    assert not [
        path
        for path in (tmp_path / "kept").rglob("*")
        if path.is_file() and path.name != ".lock" and path.suffix != ".h5"
    ]


def test_of_two_processes_one_waits_and_computes_nothing(
    text_encoder: TextEncoder, tmp_path: Path, ran: list[int]
) -> None:
    """While this one waits for the lock, the other one finishes the same questions."""
    cached(text_encoder, tmp_path / "other")
    (done,) = (tmp_path / "other").rglob("*.h5")
    theirs = tmp_path / "kept" / done.parent.name
    with ThreadPoolExecutor(1) as waiting:
        with lock(theirs / ".lock"):
            made = waiting.submit(cached, text_encoder, tmp_path / "kept")
            with pytest.raises(TimeoutError):
                made.result(timeout=0.3)
            shutil.copy(done, theirs)
        check(made.result(), text_encoder)
    assert sum(ran) == len(QUESTIONS)


def test_the_layout_is_as_published(text_encoder: TextEncoder, tmp_path: Path) -> None:
    cached(text_encoder, tmp_path / "kept")
    (path,) = (tmp_path / "kept").rglob("*.h5")
    with h5py.File(path) as file:
        texts, start_Q, vectors_PD = file["question"].asstr()[:].tolist(), file["start"][:], file["vectors"]
        assert vectors_PD.dtype == "float16" and vectors_PD.shape == (start_Q[-1], 16)
        assert vectors_PD.chunks is None and start_Q[0] == 0
        place = texts.index("how many")
        assert start_Q[place + 1] - start_Q[place] == 1 + len(text_encoder.encode("how many"))
        assert r"\u00e4 \u0000 \u4e2d?" in texts
        stated = dict(file.attrs)
    assert stated["weights_sha256"] == text_encoder.weights_sha256 and stated["longest"] == 24
    assert stated["encoder"] == text_encoder.name and stated["tokenizer_sha256"] == text_encoder.tokenizer_sha256


def test_other_weights_have_another_cache(text_encoder: TextEncoder, tmp_path: Path, ran: list[int]) -> None:
    cached(text_encoder, tmp_path / "kept")
    save_language_model(tmp_path / "model", seed=1)
    other = hf_text_encoder(text_encoder.name)
    check(cached(other, tmp_path / "kept"), other)
    assert sum(ran) == 2 * len(QUESTIONS)
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_a_damaged_file_is_named(text_encoder: TextEncoder, tmp_path: Path) -> None:
    cached(text_encoder, tmp_path / "kept")
    (path,) = (tmp_path / "kept").rglob("*.h5")
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(InputError, match=rf"{path.name}: damaged.*; remove it"):
        cached(text_encoder, tmp_path / "kept")


def test_outputs_that_float16_cannot_hold_are_refused(text_encoder: TextEncoder, tmp_path: Path) -> None:
    with torch.no_grad():
        text_encoder.transformer.model.encoder.layer[1].output.LayerNorm.weight.mul_(1e6)
    with pytest.raises(InputError, match="not finite in float16; use the model with tuned: true"):
        cached(text_encoder, tmp_path / "kept")
    assert not list((tmp_path / "kept").rglob("*.h5"))


def test_the_same_questions_give_the_same_file(text_encoder: TextEncoder, tmp_path: Path) -> None:
    digests = set()
    for folder, questions in (("one", QUESTIONS), ("two", QUESTIONS[::-1])):
        cached(text_encoder, tmp_path / folder, questions)
        (path,) = (tmp_path / folder).rglob("*.h5")
        with h5py.File(path) as file:
            digests.add((path.name, hashlib.sha256(file["vectors"][:].tobytes()).hexdigest()))
    assert len(digests) == 1
