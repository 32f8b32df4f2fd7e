"""Tiny models of transformers with random weights and tokenizers of a few hundred words, saved as folders."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vqa.data.dataset import QADataset
from vqa.external.load import CHAT_PROMPT, COMPLETION_PROMPT

SIDE = 32
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} : "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} "
    "{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}assistant :{% endif %}"
)


def words_of(dataset: QADataset) -> list[str]:
    """Every word of a split's questions, answers and choices, as written and capitalised."""
    columns = [column for column in (dataset.question, dataset.answers, dataset.choices) if column is not None]
    words = {word for column in columns for text in column.distinct for word in re.findall(r"\w+|[^\w\s]", text)}
    words |= set(re.findall(r"\w+|[^\w\s]", f"{CHAT_PROMPT} {COMPLETION_PROMPT}"))
    return sorted(words | {word.capitalize() for word in words} | {"user", "assistant"})


def _bert(words: list[str]) -> Any:
    from transformers import BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    lower = sorted({word.lower() for word in words})
    return BertTokenizer(vocab={word: number for number, word in enumerate([*special, *lower])})


def _cased(words: list[str], **options: Any) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    vocabulary = {word: number for number, word in enumerate([*special, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        **options,
    )  # fmt: skip


def _small(**changes: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return {**sizes, "initializer_range": 0.3, **changes}


def _vision(**changes: Any) -> dict[str, Any]:
    return _small(image_size=SIDE, patch_size=16, **changes)


def save_vilt(folder: Path, dataset: QADataset, answers: list[str], *, longest: int = 64) -> None:
    """A classifier over `answers` that takes so many tokens; its tokenizer knows of no limit."""
    from transformers import ViltConfig, ViltForQuestionAnswering, ViltImageProcessor, ViltProcessor

    tokenizer = _bert(words_of(dataset))
    config = ViltConfig(
        **_small(initializer_range=1.0), vocab_size=len(tokenizer), image_size=64, patch_size=16,
        max_position_embeddings=longest, id2label=dict(enumerate(answers)),
        label2id={answer: number for number, answer in enumerate(answers)},
    )  # fmt: skip
    torch.manual_seed(0)
    ViltForQuestionAnswering(config).save_pretrained(folder)
    ViltProcessor(ViltImageProcessor(size={"shortest_edge": 64}, size_divisor=16), tokenizer).save_pretrained(folder)


def save_blip(folder: Path, dataset: QADataset, *, captioner: bool = False) -> None:
    """An encoder of questions and a decoder of answers; or the captioner of the same family."""
    from transformers import (
        BlipConfig,
        BlipForConditionalGeneration,
        BlipForQuestionAnswering,
        BlipImageProcessor,
        BlipProcessor,
    )

    tokenizer = _bert(words_of(dataset))
    text = _small(vocab_size=len(tokenizer), encoder_hidden_size=16, max_position_embeddings=64)
    text |= {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0, "hidden_act": "gelu"}
    config = BlipConfig(text_config=text, vision_config=_vision(), projection_dim=16, image_text_hidden_size=16)
    torch.manual_seed(1)
    (BlipForConditionalGeneration if captioner else BlipForQuestionAnswering)(config).save_pretrained(folder)
    images = BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    BlipProcessor(images, tokenizer).save_pretrained(folder)


def save_blip2(folder: Path, dataset: QADataset) -> None:
    """A query transformer in front of a decoder-only language model."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessor

    tokenizer = _cased(words_of(dataset))
    text = {
        "model_type": "opt", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32,
        "vocab_size": len(tokenizer), "max_position_embeddings": 128, "word_embed_proj_dim": 16, "init_std": 0.3,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    queries = _small(vocab_size=len(tokenizer), encoder_hidden_size=16, cross_attention_frequency=1)
    config = Blip2Config(
        vision_config=_vision(), qformer_config=queries, text_config=text, num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    torch.manual_seed(2)
    Blip2ForConditionalGeneration(config).save_pretrained(folder)
    images = BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    Blip2Processor(images, tokenizer, num_query_tokens=4).save_pretrained(folder)


def save_git(folder: Path, dataset: QADataset) -> None:
    """One transformer over patches and words, whose positions know no padding."""
    from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

    tokenizer = _bert(words_of(dataset))
    config = GitConfig(
        **_small(vocab_size=len(tokenizer), max_position_embeddings=64), vision_config=_vision(), pad_token_id=0,
        bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    torch.manual_seed(3)
    GitForCausalLM(config).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    GitProcessor(images, tokenizer).save_pretrained(folder)


def save_llava(folder: Path, dataset: QADataset) -> None:
    """A chat model: a vision encoder in front of a language model, asked through a chat template."""
    from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    tokenizer = _cased(words_of(dataset), extra_special_tokens={"image_token": "<image>"})
    text = _small(vocab_size=len(tokenizer), max_position_embeddings=256, num_key_value_heads=2)
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **_vision()},
        text_config={"model_type": "llama", **text, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), vision_feature_layer=-1,
    )  # fmt: skip
    torch.manual_seed(4)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}), tokenizer,
        patch_size=16, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip


def save_qwen2_vl(folder: Path, dataset: QADataset) -> None:
    """A chat model whose images take as many tokens as they are large, with positions in three dimensions."""
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    marks = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    tokenizer = _cased([*words_of(dataset), *marks], additional_special_tokens=marks)
    ids = tokenizer.convert_tokens_to_ids(marks)
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    text = _small(vocab_size=len(tokenizer), max_position_embeddings=512, num_key_value_heads=2, rope_parameters=rope)
    vision = {"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 16, "mlp_ratio": 2, "patch_size": 14}
    config = Qwen2VLConfig(
        text_config=text | ends, vision_config=vision, **ends, image_token_id=ids[0], video_token_id=ids[1],
        vision_start_token_id=ids[2], vision_end_token_id=ids[3],
    )  # fmt: skip
    torch.manual_seed(5)
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    Qwen2VLProcessor(
        Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=16 * 28 * 28), tokenizer, Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE.replace("<image>", "<|vision_start|> <|image_pad|> <|vision_end|>"),
    ).save_pretrained(folder)  # fmt: skip


CHAT = ("llava", "qwen2_vl")
WRITERS: dict[str, Callable[[Path, QADataset], None]] = {
    "blip": save_blip,
    "blip2": save_blip2,
    "git": save_git,
    "llava": save_llava,
    "qwen2_vl": save_qwen2_vl,
}
