"""Fusions that run a language model: their promises, and transformers' own forward over sequences made by hand."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from helpers.language import CAUSAL, whole_model
from helpers.models import sampled
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models import LANGUAGE_FUSIONS, Fusion, Image, build_model
from vqa.models.fusions.gated_cross_attention import GatedCrossAttention
from vqa.models.fusions.prefix_lm import PrefixLM
from vqa.models.question_encoders.pretrained import Pretrained, TextTransformer
from vqa.testing import FUSION_PROMISES, FusionCase
from vqa.testing.batches import IMAGE_DIM, REGIONS, WORD_DIM, random_image, random_tokens, shake

LENGTHS, WORDS = [3, 1, 6, 4], 15
MASK_IR = torch.tensor([[True, False, True, True, False], [False, False, False, False, True]])
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-11}


def transformer(kind: str, *, width: int = 16, longest: int = 256, seed: int = 0) -> TextTransformer:
    """A tiny language model with weights far from those that it begins with."""
    torch.manual_seed(seed)
    whole = whole_model(kind, longest, width).eval()
    reads = {"t5": lambda: whole.get_encoder(), "clip": lambda: whole.text_model}
    made = TextTransformer(reads.get(kind, lambda: whole)(), 0, kind in CAUSAL)
    shake(made)
    return made


@dataclass(frozen=True)
class LanguageCase(FusionCase):
    """A fusion with a language model, the same one whatever the seed."""

    kind: str = "gpt2"

    def make(self, *, regions: int = REGIONS, seed: int = 0) -> Fusion:
        model = transformer(self.kind, width=WORD_DIM)
        torch.manual_seed(seed)
        return self.fusion(image_dim=IMAGE_DIM, regions=regions, transformer=model, **self.options).eval()


CASES = {
    "mlp": LanguageCase(PrefixLM),
    "linear, last layer tuned": LanguageCase(PrefixLM, {"projector": "linear", "tuned": 1}),
    "resampler": LanguageCase(PrefixLM, {"projector": "resampler", "queries": 3, "heads": 2, "hidden_dim": 8}),
    "gated, causal": LanguageCase(GatedCrossAttention, {"heads": 2, "head_dim": 4, "pooling": "last"}),
    "gated, both ways": LanguageCase(GatedCrossAttention, {"heads": 2, "head_dim": 4, "tuned": 1}, kind="bert"),
}


@pytest.mark.parametrize(("case", "promise"), sampled((case, promise) for case in CASES for promise in FUSION_PROMISES))
def test_promise(case: str, promise: Callable[[FusionCase], None]) -> None:
    promise(CASES[case])


def asked(model: TextTransformer, **options: Any) -> tuple[Pretrained, Tensor, Tensor]:
    """A question encoder over the model's word embeddings, and tokens for it."""
    tokens_BT, length_B = random_tokens(LENGTHS, width=8)
    return Pretrained(vocab_size=2, transformer=model, words="embeddings", **options), tokens_BT % WORDS, length_B


def shared_image() -> Image:
    return Image(random_image(2).double(), torch.tensor([1, 0, 0, 1]), MASK_IR)


@pytest.mark.parametrize("projector", ["linear", "mlp"])
@pytest.mark.parametrize("kind", CAUSAL)
def test_prefix_lm_is_the_models_own_forward_over_real_regions_then_words(kind: str, projector: Any) -> None:
    model = transformer(kind).double()
    encoder, tokens_BT, length_B = asked(model)
    fusion = PrefixLM(image_dim=IMAGE_DIM, regions=REGIONS, transformer=model, projector=projector).double()
    assert encoder.word_dim == model.model.get_input_embeddings().weight.shape[1]
    assert fusion.out_dim == model.width
    weights = {key: value.detach() for key, value in fusion.projector.state_dict().items()}
    assert len(weights) == (2 if projector == "linear" else 4)
    for image in (shared_image(), shared_image()._replace(mask_IR=None)):
        vector_BD = fusion(image, encoder(tokens_BT, length_B)).vector_BD
        for row, length in enumerate(LENGTHS):
            regions_RC = image.regions_BRC[row]
            regions_RC = regions_RC if image.mask_BR is None else regions_RC[image.mask_BR[row]]
            prefix_RE = regions_RC @ weights["0.weight"].T + weights["0.bias"]
            if projector == "mlp":
                prefix_RE = F.gelu(prefix_RE) @ weights["2.weight"].T + weights["2.bias"]
            words_TE = model.model.get_input_embeddings().weight[tokens_BT[row, :length]]
            output = model.model(inputs_embeds=torch.cat([prefix_RE, words_TE])[None])
            torch.testing.assert_close(vector_BD[row], output.last_hidden_state[0, -1], **CLOSE)


def test_prefix_lm_is_transformers_llava() -> None:
    """Its vision encoder's patches of the layer before the last, its projector and its language model, image first."""
    tiny = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = transformers.CLIPVisionConfig(**tiny, image_size=16, patch_size=8)
    text = transformers.LlamaConfig(**tiny, vocab_size=20, max_position_embeddings=32)
    torch.manual_seed(0)
    llava = (
        transformers.LlavaModel(transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=19))
        .double()
        .eval()
    )
    shake(llava)
    model = TextTransformer(llava.language_model, 0, causal=True)
    fusion = PrefixLM(image_dim=16, regions=4, transformer=model, projector="mlp").double()
    theirs = llava.multi_modal_projector
    for place, layer in ((0, theirs.linear_1), (2, theirs.linear_2)):
        fusion.projector[place].load_state_dict(layer.state_dict())
    tokens_BT = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10]])
    pixels_B3SS = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    images_BR = torch.full((2, 4), 19)
    expected = llava(input_ids=torch.cat([images_BR, tokens_BT], dim=1), pixel_values=pixels_B3SS).last_hidden_state
    regions_BRC = llava.vision_tower(pixels_B3SS, output_hidden_states=True).hidden_states[-2][:, 1:]
    question = Pretrained(vocab_size=2, transformer=model, words="embeddings")(tokens_BT, torch.tensor([4, 4]))
    torch.testing.assert_close(fusion(Image(regions_BRC), question).vector_BD, expected[:, -1], **CLOSE)


def test_a_resamplers_queries_are_the_prefix_whatever_the_number_of_regions() -> None:
    model = transformer("gpt2").double()
    encoder, tokens_BT, length_B = asked(model)
    small: dict[str, Any] = {"queries": 3, "heads": 2, "hidden_dim": 8}
    fusion = PrefixLM(image_dim=IMAGE_DIM, regions=300, transformer=model, projector="resampler", **small).double()
    image, resampler = shared_image(), fusion.resampler
    assert resampler is not None and image.row_B is not None
    fused = fusion(image, encoder(tokens_BT, length_B))
    assert fused.attention_BHR is not None
    for row, length in enumerate(LENGTHS):
        place = image.row_B[row]
        queries_1KD, looks_1KR = resampler(image.regions_IRC[place][MASK_IR[place]][None])
        words_TE = model.model.get_input_embeddings().weight[tokens_BT[row, :length]]
        output = model.model(inputs_embeds=torch.cat([fusion.projector(queries_1KD)[0], words_TE])[None])
        torch.testing.assert_close(fused.vector_BD[row], output.last_hidden_state[0, -1], **CLOSE)
        torch.testing.assert_close(fused.attention_BHR[row][:, MASK_IR[place]], looks_1KR[0], **CLOSE)


def test_a_region_that_pads_gets_no_gradient_and_an_image_is_projected_once() -> None:
    model = transformer("gpt2").double()
    encoder, tokens_BT, length_B = asked(model)
    fusion = PrefixLM(image_dim=IMAGE_DIM, regions=REGIONS, transformer=model).double()
    image, rows = shared_image(), []
    image.regions_IRC.requires_grad_()
    fusion.projector.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    fusion(image, encoder(tokens_BT, length_B)).vector_BD.square().sum().backward()
    assert rows == [2]
    assert image.regions_IRC.grad is not None
    assert torch.equal(image.regions_IRC.grad.abs().sum(dim=2) > 0, MASK_IR)


def pooled(states_BTD: Tensor, length_B: Tensor, pooling: str) -> Tensor:
    rows = [states_TD[:length] for states_TD, length in zip(states_BTD, length_B.tolist(), strict=True)]
    by = {"mean": lambda row: row.mean(dim=0), "first": lambda row: row[0], "last": lambda row: row[-1]}
    return torch.stack([by[pooling](row) for row in rows])


def gated(model: TextTransformer, **options: Any) -> GatedCrossAttention:
    small: dict[str, Any] = {"heads": 2, "head_dim": 4} | options
    return GatedCrossAttention(image_dim=IMAGE_DIM, regions=REGIONS, transformer=model, **small).double()


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [("bert", "mean"), ("roberta", "first"), ("mpnet", "mean"), ("t5", "mean"), ("gpt2", "last"), ("opt", "last"),
     ("llama", "mean")],
)  # fmt: skip
def test_closed_gates_leave_the_text_model_as_it_is(kind: str, pooling: Any) -> None:
    model = transformer(kind).double()
    encoder, tokens_BT, length_B = asked(model)
    tokens_BT = tokens_BT.masked_fill(tokens_BT <= 1, 4)  # RoBERTa counts positions over what is not its padding
    fusion = gated(model, pooling=pooling)
    fused = fusion(shared_image(), encoder(tokens_BT, length_B))
    states = [
        F.pad(model.model(input_ids=tokens_BT[row : row + 1, :length]).last_hidden_state, (0, 0, 0, 8 - length))
        for row, length in enumerate(LENGTHS)
    ]
    torch.testing.assert_close(fused.vector_BD, pooled(torch.cat(states), length_B, pooling), **CLOSE)
    with torch.no_grad():
        for gate in ("blocks.0.attention_gate", "blocks.1.feed_forward_gate"):
            fusion.get_parameter(gate).fill_(0.5)
    opened = fusion(shared_image(), encoder(tokens_BT, length_B))
    assert float((opened.vector_BD - fused.vector_BD).detach().abs().max()) > 1e-3


def block_by_hand(block: nn.Module, y_TD: Tensor, x_RC: Tensor) -> tuple[Tensor, Tensor]:
    """Figure 4 of the paper for one question, head by head; the weights are those of the mean over its words."""
    w = {key: value.detach() for key, value in block.state_dict().items()}

    def normed(values: Tensor, name: str) -> Tensor:
        centred = values - values.mean(dim=-1, keepdim=True)
        scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    n_TD, found, weights = normed(y_TD, "before_attention"), [], []
    for head in (slice(0, 4), slice(4, 8)):
        scores_TR = (n_TD @ w["query.weight"][head].T) @ (x_RC @ w["key.weight"][head].T).T / 2  # sqrt(4)
        share_TR = scores_TR.exp() / scores_TR.exp().sum(dim=1, keepdim=True)
        found.append(share_TR @ (x_RC @ w["value.weight"][head].T))
        weights.append(share_TR.mean(dim=0))
    y_TD = y_TD + w["attention_gate"].tanh() * (torch.cat(found, dim=1) @ w["output.weight"].T)
    inside = (normed(y_TD, "before_feed_forward") @ w["wide.weight"].T).clamp(min=0) ** 2
    return y_TD + w["feed_forward_gate"].tanh() * (inside @ w["narrow.weight"].T), torch.stack(weights)


@pytest.mark.parametrize("every", [1, 2])
def test_gated_blocks_are_the_papers_equations_between_gpt2s_own_layers(every: int) -> None:
    model = transformer("gpt2").double()
    encoder, tokens_BT, length_B = asked(model)
    fusion = gated(model, every=every, pooling="last")
    assert len(fusion.blocks) == 2 // every
    shake(fusion)
    image, gpt2 = shared_image(), model.model
    fused = fusion(image, encoder(tokens_BT, length_B))
    assert fused.attention_BHR is not None
    for row, length in enumerate(LENGTHS):
        x_RC = image.regions_BRC[row][MASK_IR[image.row_B][row]]
        x_RC = F.layer_norm(x_RC, (IMAGE_DIM,), fusion.before_regions.weight, fusion.before_regions.bias)
        y_TD = gpt2.wte.weight[tokens_BT[row, :length]] + gpt2.wpe.weight[:length]
        for place, layer in enumerate(gpt2.h):
            if (place + 1) % every == 0:
                y_TD, weights_HR = block_by_hand(fusion.blocks[(place + 1) // every - 1], y_TD, x_RC)
            y_TD = layer(y_TD[None])[0]
        torch.testing.assert_close(fused.vector_BD[row], gpt2.ln_f(y_TD)[-1], **CLOSE)
        torch.testing.assert_close(fused.attention_BHR[row][:, MASK_IR[image.row_B][row]], weights_HR, **CLOSE)


@pytest.mark.parametrize("name", LANGUAGE_FUSIONS)
@pytest.mark.parametrize(("tuned", "learns"), [(False, []), (1, ["h.1"]), (2, ["h.0", "h.1"]), (True, ["wte", "wpe"])])
def test_only_what_is_tuned_learns_and_drops_out(name: str, tuned: bool | int, learns: list[str]) -> None:
    model = transformer("gpt2")
    encoder, tokens_BT, length_B = asked(model)
    fusion = LANGUAGE_FUSIONS[name](image_dim=IMAGE_DIM, regions=REGIONS, transformer=model, tuned=tuned)
    shake(fusion)
    fusion.train()
    fusion(Image(random_image()), encoder(tokens_BT, length_B)).vector_BD.square().sum().backward()
    named = {key.removeprefix("model."): value for key, value in model.named_parameters()}
    for key, parameter in named.items():
        tuned_now = tuned is True or key.startswith(tuple(f"{one}." for one in learns))
        assert (parameter.grad is not None) == parameter.requires_grad == tuned_now, key
    own = {key for key, _ in fusion.named_parameters() if not key.startswith("language_model.")}
    assert own and all(fusion.get_parameter(key).grad is not None for key in own)
    held = sum(value.numel() for key, value in fusion.state_dict().items() if key.startswith("language_model."))
    assert held == sum(value.numel() for value in named.values() if value.requires_grad)
    assert [layer.training for layer in model.model.h] == [tuned is True or f"h.{n}" in learns for n in range(2)]
    assert not fusion.eval().training and not any(layer.training for layer in model.model.h)


def built(kind: str, encoder: dict[str, Any], **fusion: Any) -> None:
    build_model(
        question_encoder={"name": "hf:x", "words": "embeddings"} | encoder, fusion=fusion, classifier={},
        vocab_size=2, image_dim=IMAGE_DIM, regions=REGIONS, answers=3, transformer=transformer(kind, longest=9),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "encoder", "fusion", "said"),
    [
        ("bert", {}, {"name": "prefix_lm"}, "BertModel is no causal language model; choose a decoder"),
        ("t5", {}, {"name": "prefix_lm"}, "T5Stack is no causal language model"),
        ("clip", {}, {"name": "gated_cross_attention"}, "CLIPText[A-Za-z]* takes tokens alone"),
        (
            "gpt2",
            {"words": "outputs"},
            {"name": "prefix_lm"},
            "must be {name: hf:NAME_OR_PATH, words: embeddings}, not",
        ),
        ("gpt2", {"tuned": True}, {"name": "prefix_lm"}, "set fusion.tuned in place of question_encoder.tuned"),
        ("gpt2", {"pooling": "pooled"}, {"name": "prefix_lm"}, "pooling to mean, first or last"),
        ("gpt2", {}, {"name": "prefix_lm", "tuned": 3}, "tuned: 3: GPT2Model has 2 layers"),
        ("gpt2", {}, {"name": "prefix_lm", "tuned": 0}, "tuned must be bool, or int of at least 1"),
        ("gpt2", {}, {"name": "prefix_lm", "transformer": 1}, "transformer follows from the data and cannot be set"),
        ("gpt2", {}, {"name": "gated_cross_attention", "every": 3}, "every: 3: the language model has 2 layers"),
    ],
)
def test_what_does_not_fit_is_refused(kind: str, encoder: Any, fusion: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        built(kind, encoder, **fusion)


def test_more_tokens_than_positions_are_refused() -> None:
    model = transformer("gpt2", longest=9)
    with pytest.raises(InputError, match=r"9 regions leave no room for a question: .* positions for 9 tokens"):
        PrefixLM(image_dim=IMAGE_DIM, regions=9, transformer=model)
    encoder, tokens_BT, length_B = asked(model)
    fusion = PrefixLM(image_dim=IMAGE_DIM, regions=2, transformer=model)
    with pytest.raises(InputError, match="10 tokens, regions included, are more than the 9 that the language model"):
        fusion(Image(random_image(regions=2)), encoder(tokens_BT, length_B))


def test_layers_that_share_their_weights_cannot_be_told_apart() -> None:
    tiny = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    albert = TextTransformer(transformers.AlbertModel(transformers.AlbertConfig(**tiny, vocab_size=20)), 0)
    with pytest.raises(InputError, match="AlbertModel: its layers cannot be found"):
        GatedCrossAttention(image_dim=IMAGE_DIM, regions=REGIONS, transformer=albert)


def test_word_embeddings_are_the_models_own_and_go_with_any_other_fusion() -> None:
    model = transformer("bert")
    encoder, tokens_BT, length_B = asked(model, pooling="last")
    question, table = encoder(tokens_BT, length_B), model.model.get_input_embeddings().weight
    for row, length in enumerate(LENGTHS):
        assert torch.equal(question.words_BTD[row, :length], table[tokens_BT[row, :length]])
        assert not question.words_BTD[row, length:].any() and question.mask_BT[row].sum() == length
        assert torch.equal(question.sentence_BD[row], question.words_BTD[row, length - 1])
    assert not any(True for _ in encoder.parameters()) and not question.words_BTD.requires_grad
    built("bert", {}, name="product")


@pytest.mark.parametrize("case", ["mlp", "gated, both ways"])
def test_a_frozen_language_model_learns_16_samples_by_heart(case: str) -> None:
    """Everything that it learns with reaches it through the frozen layers, or from in between them."""
    model = transformer("bert" if "both" in case else "gpt2")
    encoder = Pretrained(vocab_size=2, transformer=model, words="embeddings")
    tokens_BT, length_B = random_tokens([2 + row % 5 for row in range(16)])
    question, image = encoder(tokens_BT % WORDS, length_B), Image(random_image(16))
    fusion = CASES[case].fusion(
        image_dim=IMAGE_DIM, regions=REGIONS, transformer=model, **dict(CASES[case].options) | {"tuned": False}
    )
    classifier = nn.Linear(fusion.out_dim, 7)
    right_B = torch.randint(0, 7, (16,), generator=torch.Generator().manual_seed(4))
    optimiser = torch.optim.Adam([*fusion.parameters(), *classifier.parameters()], lr=0.02)
    for _ in range(300):
        logits_BA = classifier(fusion(image, question).vector_BD)
        if bool((logits_BA.argmax(dim=1) == right_B).all()):
            return
        optimiser.zero_grad()
        F.cross_entropy(logits_BA, right_B).backward()
        optimiser.step()
    raise AssertionError("not learnt")
