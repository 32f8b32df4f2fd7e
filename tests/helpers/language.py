"""Tiny language models with random weights, saved as transformers saves them, with tokenizers made here."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

WORDS = ["what", "is", "the", "color", "of", "cat", "##s", "how", "many", "are", "there", "circle", "red", "?", "a"]
TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
# special tokens in the order of their numbers, and the template of a question
SPECIALS: dict[str, tuple[list[str], str]] = {
    "bert": (["[PAD]", "[UNK]", "[CLS]", "[SEP]"], "[CLS] $A [SEP]"),
    "roberta": (["<s>", "<pad>", "</s>", "<unk>"], "<s> $A </s>"),
    "mpnet": (["<s>", "<pad>", "</s>", "<unk>"], "<s> $A </s>"),
    "clip": (["!", "<unk>", "<start>", "<end>"], "<start> $A <end>"),
    "t5": (["<pad>", "</s>", "<unk>"], "$A </s>"),
    "gpt2": (["<unk>", "<end>"], "$A"),
    "opt": (["<s>", "<pad>", "</s>", "<unk>"], "</s> $A"),
    "llama": (["<unk>", "<s>", "</s>"], "<s> $A"),
    "qwen2": (["<unk>", "<end>"], "$A"),
}
KINDS = tuple(kind for kind in SPECIALS if kind != "qwen2")  # transformers takes no tokenizer but its own for that
CAUSAL = ("gpt2", "opt", "llama", "qwen2")  # those that prefix_lm takes
POOLED = ("bert", "roberta", "mpnet", "clip")  # those with a pooled output


def whole_model(kind: str, longest: int = 24, width: int = 16) -> Any:
    """The model as somebody would publish it."""
    tiny = TINY | {"hidden_size": width}
    size = {"vocab_size": len(SPECIALS[kind][0]) + len(WORDS)}
    positions = {"max_position_embeddings": longest}
    match kind:
        case "bert":
            return transformers.BertModel(transformers.BertConfig(**tiny, **size, **positions))
        case "roberta":
            positions = {"max_position_embeddings": longest + 2}  # the padding token's number and one are not used
            return transformers.RobertaModel(transformers.RobertaConfig(**tiny, **size, **positions, pad_token_id=1))
        case "mpnet":
            positions = {"max_position_embeddings": longest + 2}
            return transformers.MPNetModel(transformers.MPNetConfig(**tiny, **size, **positions, pad_token_id=1))
        case "clip":
            text = tiny | size | positions | {"eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 3}
            vision = tiny | {"image_size": 32, "patch_size": 8}
            return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision))
        case "t5":
            return transformers.T5Model(
                transformers.T5Config(**size, d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
            )
        case "opt":  # its word embeddings are narrower than its layers, as in OPT-350M
            narrow = {"word_embed_proj_dim": 12, "ffn_dim": 32, "do_layer_norm_before": False, "pad_token_id": 1}
            return transformers.OPTModel(transformers.OPTConfig(**tiny, **size, **positions, **narrow))
        case "llama":
            grouped = {"num_key_value_heads": 1, "pad_token_id": None}
            return transformers.LlamaModel(transformers.LlamaConfig(**tiny, **size, **positions, **grouped))
        case "qwen2":
            grouped = {"num_key_value_heads": 1, "pad_token_id": None}
            return transformers.Qwen2Model(transformers.Qwen2Config(**tiny, **size, **positions, **grouped))
        case _:
            return transformers.GPT2Model(
                transformers.GPT2Config(**size, n_embd=width, n_layer=2, n_head=2, n_positions=longest)
            )


def tokenizer(kind: str) -> Any:
    """WordPiece over a few words, with the special tokens of the kind."""
    specials, template = SPECIALS[kind]
    unknown = next(token for token in specials if "unk" in token.lower())
    index = {word: number for number, word in enumerate(specials + WORDS)}
    made = Tokenizer(WordPiece(index, unk_token=unknown))
    made.normalizer, made.pre_tokenizer = Lowercase(), BertPreTokenizer()
    used = [(token, index[token]) for token in template.split() if token != "$A"]
    made.post_processor = TemplateProcessing(single=template, special_tokens=used)
    padding = {"clip": "<end>"}.get(kind) or next((token for token in specials if "pad" in token.lower()), None)
    names = {"unk_token": unknown, "pad_token": padding, "eos_token": {"gpt2": "<end>", "llama": "</s>"}.get(kind)}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names)


def save_language_model(folder: Path, kind: str = "bert", *, seed: int = 0, longest: int = 24) -> Any:
    """Write model and tokenizer; returns the model."""
    torch.manual_seed(seed)
    model = whole_model(kind, longest).eval()
    with torch.no_grad():  # far from the small numbers that they begin with
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    tokenizer(kind).save_pretrained(folder)
    return model
