"""Pretrained question encoders against transformers' own output, on tiny models of several architectures."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers.language import CAUSAL, KINDS, POOLED, save_language_model, tokenizer, whole_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from vqa.errors import InputError
from vqa.features.encoders.text_encoders import TextEncoder, hf_text_encoder, transformer_without_weights
from vqa.models.question_encoders.pretrained import Pretrained, frozen_vectors

QUESTIONS = ["What is the color of the cats?", "how many", "a", "Zebra! is there a red circle", ""]
every_kind = pytest.mark.parametrize("kind", KINDS)


def batch(
    text_encoder: TextEncoder, questions: list[str] = QUESTIONS, width: int | None = None
) -> tuple[Tensor, Tensor]:
    """Right-padded with 0, as the data path pads."""
    encoded = text_encoder.encode_all(questions)
    tokens_BT = torch.zeros(len(encoded), width or max(map(len, encoded)), dtype=torch.int64)
    for row, tokens in enumerate(encoded):
        tokens_BT[row, : len(tokens)] = torch.tensor(tokens)
    return tokens_BT, torch.tensor([len(tokens) for tokens in encoded])


def own_output(model: Any, kind: str, question: str) -> Any:
    """What transformers itself says of one question, without any padding."""
    text = model.text_model if kind == "clip" else model.get_encoder() if kind == "t5" else model
    ids = tokenizer(kind)(question, return_tensors="pt")["input_ids"].long()
    with torch.no_grad():
        return text(input_ids=ids if ids.numel() else torch.tensor([[1]]))


@every_kind
@pytest.mark.parametrize("width", [None, 23])
def test_words_and_pooled_are_the_models_own_whatever_the_padding(tmp_path: Path, kind: str, width: int | None) -> None:
    model = save_language_model(tmp_path, kind)
    text_encoder = hf_text_encoder(f"hf:{tmp_path}")
    tokens_BT, length_B = batch(text_encoder, width=width)
    with torch.no_grad():
        words_BTD, pooled_BD = text_encoder.transformer(tokens_BT, torch.arange(tokens_BT.shape[1]) < length_B[:, None])
    assert text_encoder.transformer.has_pooled == (kind in POOLED) == (pooled_BD is not None)
    for row, question in enumerate(QUESTIONS):
        expected = own_output(model, kind, question)
        torch.testing.assert_close(words_BTD[row, : length_B[row]], expected.last_hidden_state[0], atol=2e-5, rtol=1e-4)
        if pooled_BD is not None:
            torch.testing.assert_close(pooled_BD[row], expected.pooler_output[0], atol=2e-5, rtol=1e-4)


@every_kind
def test_tokens_are_the_tokenizers_own_and_the_case_is_its_affair(tmp_path: Path, kind: str) -> None:
    save_language_model(tmp_path, kind)
    text_encoder = hf_text_encoder(f"hf:{tmp_path}")
    expected = [tokenizer(kind)(question)["input_ids"] or [1] for question in QUESTIONS]
    assert text_encoder.encode_all(QUESTIONS) == expected == [text_encoder.encode(question) for question in QUESTIONS]
    assert all(expected), "a question is never empty"
    assert text_encoder.encode_all([]) == []
    assert len(text_encoder) == len(tokenizer(kind)) and text_encoder.unknown("zebra") == ()


@every_kind
def test_long_questions_are_cut_to_what_the_model_takes_and_counted(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save_language_model(tmp_path, kind)
    text_encoder = hf_text_encoder(f"hf:{tmp_path}")
    if kind == "t5":
        assert text_encoder.longest > 10_000  # its positions are relative
        return
    assert text_encoder.longest == 24
    long = "cat " * 40
    tokens_BT, length_B = batch(text_encoder, ["a", long, long])
    assert length_B.tolist()[1:] == [24, 24]
    assert "2 of 3 questions are longer than the 24 tokens" in capsys.readouterr().out
    assert (
        text_encoder.encode(long)[-1] == tokenizer(kind)("cat")["input_ids"][-1]
    )  # the special token at the end is kept
    mask_BT = torch.arange(24) < length_B[:, None]
    assert text_encoder.transformer(tokens_BT, mask_BT)[0].isfinite().all()


@every_kind
def test_a_causal_model_is_known_and_does_not_look_ahead(tmp_path: Path, kind: str) -> None:
    save_language_model(tmp_path, kind)
    whole, shape = hf_text_encoder(f"hf:{tmp_path}").transformer, transformer_without_weights(f"hf:{tmp_path}")
    assert whole.causal == shape.causal == (kind in CAUSAL)
    tokens_BT = torch.tensor([[4, 5, 6], [4, 5, 7]])
    with torch.no_grad():
        words_BTD, _ = whole(tokens_BT, torch.ones(2, 3, dtype=torch.bool), full=True)
    looks_ahead = float((words_BTD[0, :2] - words_BTD[1, :2]).abs().max()) > 1e-3
    assert looks_ahead == (kind not in (*CAUSAL, "clip"))  # CLIP's does not, but takes no word vectors


@every_kind
def test_files_without_weights_build_the_same_model(tmp_path: Path, kind: str) -> None:
    save_language_model(tmp_path / "model", kind)
    text_encoder = hf_text_encoder(f"hf:{tmp_path / 'model'}")
    text_encoder.save_files(tmp_path / "files")
    text_encoder.save_files(tmp_path / "files")  # over what is there
    assert not list((tmp_path / "files").glob("*.safetensors"))
    again = hf_text_encoder("hf:gone", files=tmp_path / "files", weights=False)
    assert again.tokenizer_sha256 == text_encoder.tokenizer_sha256 and again.longest == text_encoder.longest
    again.transformer.load_state_dict(text_encoder.transformer.state_dict())
    mask_BT = torch.ones(2, 5, dtype=torch.bool)
    tokens_BT = torch.randint(0, len(text_encoder), (2, 5))
    assert torch.equal(again.transformer(tokens_BT, mask_BT)[0], text_encoder.transformer(tokens_BT, mask_BT)[0])
    save_file(text_encoder.transformer.state_dict(), tmp_path / "one.safetensors")  # no two names share a tensor


def test_the_digest_is_that_of_weights_and_tokenizer(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        save_language_model(tmp_path / name, seed=seed)
    one, same, other = (hf_text_encoder(f"hf:{tmp_path / name}") for name in ("one", "same", "other"))
    assert one.weights_sha256 == same.weights_sha256 != other.weights_sha256
    assert one.tokenizer_sha256 == same.tokenizer_sha256 == other.tokenizer_sha256
    one.encode("cats " * 40)  # truncation leaves no trace
    content = json.loads((tmp_path / "one" / "tokenizer.json").read_text())
    content["normalizer"] = None
    (tmp_path / "one" / "tokenizer.json").write_text(json.dumps(content))
    assert hf_text_encoder(f"hf:{tmp_path / 'one'}").tokenizer_sha256 != one.tokenizer_sha256


def encoder_of(folder: Path, kind: str = "bert", **options: Any) -> tuple[Pretrained, TextEncoder]:
    save_language_model(folder, kind)
    text_encoder = hf_text_encoder(f"hf:{folder}")
    return Pretrained(vocab_size=9, transformer=text_encoder.transformer, **options).eval(), text_encoder


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize(
    ("kind", "pooling"),
    [*((kind, "mean") for kind in KINDS), *(("bert", pooling) for pooling in ("first", "last", "pooled")),
     ("clip", "pooled"), ("t5", "pooled")],
)  # fmt: skip
def test_the_contract_of_a_question_encoder(tmp_path: Path, kind: str, tuned: bool, pooling: str) -> None:
    if pooling == "pooled" and kind not in POOLED:
        with pytest.raises(InputError, match="no pooled output; set pooling to mean, first or last"):
            encoder_of(tmp_path, kind, tuned=tuned, pooling=pooling)
        return
    encoder, text_encoder = encoder_of(tmp_path, kind, tuned=tuned, pooling=pooling)
    tokens_BT, length_B = batch(text_encoder)
    question = encoder(tokens_BT, length_B)
    assert question.words_BTD.shape == (*tokens_BT.shape, encoder.word_dim)
    assert question.sentence_BD.shape == (len(QUESTIONS), encoder.sentence_dim)
    assert question.mask_BT.sum(dim=1).tolist() == length_B.tolist()
    assert not question.words_BTD[~question.mask_BT].any()
    wide = encoder(*batch(text_encoder, width=22))
    near: dict[str, Any] = {"atol": 2e-3, "rtol": 2e-3}  # frozen outputs are rounded to float16
    torch.testing.assert_close(wide.sentence_BD, question.sentence_BD, **near)
    for row, length in enumerate(length_B.tolist()):
        alone = encoder(tokens_BT[row : row + 1, :length], length_B[row : row + 1])
        torch.testing.assert_close(alone.sentence_BD[0], question.sentence_BD[row], **near)
        torch.testing.assert_close(alone.words_BTD[0], question.words_BTD[row, :length], **near)
        words_TD = question.words_BTD[row, :length]
        expected = {"mean": words_TD.mean(dim=0), "first": words_TD[0], "last": words_TD[-1]}
        if pooling in expected:
            torch.testing.assert_close(question.sentence_BD[row], expected[pooling])


@every_kind
def test_tuned_every_weight_gets_a_gradient_and_frozen_there_is_none(tmp_path: Path, kind: str) -> None:
    encoder, text_encoder = encoder_of(tmp_path, kind, tuned=True)
    question = encoder.train()(*batch(text_encoder))
    ((question.words_BTD * torch.randn_like(question.words_BTD)).sum() + question.sentence_BD.sum()).backward()
    idle = [key for key, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle and count(encoder) > 1000

    frozen, text_encoder = encoder_of(tmp_path, kind)
    assert not list(frozen.parameters()) and not frozen.state_dict()
    question = frozen.train()(*batch(text_encoder))
    assert not question.sentence_BD.requires_grad and not text_encoder.transformer.training
    assert torch.equal(question.sentence_BD, frozen(*batch(text_encoder)).sentence_BD)  # no dropout


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("pooling", ["mean", "first", "last", "pooled"])
def test_frozen_vectors_stand_for_the_tokens(tmp_path: Path, pooling: str) -> None:
    encoder, text_encoder = encoder_of(tmp_path, pooling=pooling)
    tokens_BT, length_B = batch(text_encoder)
    vectors_BPD = frozen_vectors(text_encoder.transformer, tokens_BT, length_B)
    assert vectors_BPD.dtype == torch.float16 and vectors_BPD.shape == (len(QUESTIONS), tokens_BT.shape[1] + 1, 16)
    for one, other in zip(encoder(tokens_BT, length_B), encoder(vectors_BPD, length_B), strict=True):
        assert torch.equal(one, other)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(frozen_vectors(text_encoder.transformer, tokens_BT, length_B), vectors_BPD)


def test_word_vectors_are_refused(tmp_path: Path) -> None:
    encoder, _ = encoder_of(tmp_path)
    with pytest.raises(InputError, match="word vectors of its own"):
        encoder.set_word_vectors(torch.tensor([1]), torch.zeros(1, 16))


def test_a_checkpoint_without_pooler_has_none_and_the_same_digest_each_time(tmp_path: Path) -> None:
    save_language_model(tmp_path)
    state = {key: value for key, value in load_file(tmp_path / "model.safetensors").items() if "pooler" not in key}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    one, two = hf_text_encoder(f"hf:{tmp_path}"), hf_text_encoder(f"hf:{tmp_path}")
    assert not one.transformer.has_pooled and one.weights_sha256 == two.weights_sha256


def test_missing_weights_are_named(tmp_path: Path) -> None:
    save_language_model(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file(
        {key: value for key, value in state.items() if "layer.1.output" not in key},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(InputError, match=r"the weights lack 'encoder\.layer\.1\.output\.\S+' and \d+ more"):
        hf_text_encoder(f"hf:{tmp_path}")


def test_what_is_not_there_is_said_in_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"hf:nobody/nothing: .*config.json cannot be had.*\nWithout a network"):
        hf_text_encoder("hf:nobody/nothing")
    save_language_model(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"weights cannot be had: .*file not fully covered"):
        hf_text_encoder(f"hf:{tmp_path / 'model'}")
    weights.unlink()
    with pytest.raises(InputError, match=r"weights cannot be had.*\nWithout a network"):
        hf_text_encoder(f"hf:{tmp_path / 'model'}")
    whole_model("bert").save_pretrained(tmp_path / "mute")
    with pytest.raises(InputError, match=r"tokenizer cannot be had.*\nThe folder needs tokenizer\.json"):
        hf_text_encoder(f"hf:{tmp_path / 'mute'}")
    whole_model("t5").save_pretrained(tmp_path / "other")
    tokenizer("bert").save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match=r"tokenizer counts to 18, the model to 17"):
        hf_text_encoder(f"hf:{tmp_path / 'other'}")


def test_a_model_of_images_is_refused(tmp_path: Path) -> None:
    size = {"image_size": 32, "patch_size": 8}
    transformers.ViTModel(transformers.ViTConfig(hidden_size=16, num_attention_heads=2, **size)).save_pretrained(
        tmp_path
    )
    tokenizer("bert").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="not a model of text"):
        hf_text_encoder(f"hf:{tmp_path}")
