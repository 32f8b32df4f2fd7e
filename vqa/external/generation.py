"""Models that generate their answers: BLIP, BLIP-2, GIT and chat models, behind transformers' `generate`.

Open-ended answers are decoded greedily. A choice scores the probability that the model generates exactly it and ends:
the product over its tokens and the end token, by teacher forcing through the very same `generate`, so that position
ids, padding and caches are the model's own. The end token makes texts of different lengths comparable, so there is no
normalisation by length. The spellings of one choice that mean the same answer ("yes", "Yes") add up.

Where the free answer has ended, is one of the choices and is more probable than one half, no other choice can
be more probable, and it is taken without scoring the rest. Otherwise a question with 18 choices costs 18 to 36 more
rows.

Legend: `B` rows of a batch, `L` tokens of a prompt, `T` new tokens, `V` vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vqa.errors import InputError
from vqa.external.contracts import Batch, ExternalModel, ModelAnswer, Settings, clean_answer

CERTAIN = 0.5  # no two different answers are both more probable than this


class GenerativeModel(ExternalModel):
    """A model with `generate`; prompts go through its processor as they are, or through its chat template."""

    def __init__(self, name: str, revision: str, model: Any, processor: Any, settings: Settings) -> None:
        super().__init__(name, revision, model, processor, settings)
        self.tokenizer = processor.tokenizer
        self.kind = "chat" if getattr(processor, "chat_template", None) else "generative"
        self.tokenizer.padding_side = "left"  # so that every row of a batch goes on where its prompt ends
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.end_ids = _end_ids(name, model, self.tokenizer)

    def prompt_length(self, question: str) -> int:
        return len(self.tokenizer(self.prompt(question))["input_ids"])

    def encode(self, images: Sequence[Image.Image], questions: Sequence[str]) -> Mapping[str, Tensor]:
        processor, prompts = self.own_processor(), [self.prompt(question) for question in questions]
        options: dict[str, Any] = {"padding": True, "return_tensors": "pt"}
        if self.kind == "chat":
            prompts = [_as_chat(processor, prompt) for prompt in prompts]
            begin = self.tokenizer.bos_token
            options["add_special_tokens"] = begin is None or not prompts[0].startswith(begin)
            return dict(processor(images=[[image] for image in images], text=prompts, **options))
        inputs = dict(processor(images=list(images), text=prompts, **options))
        if self.model.config.model_type == "git":  # its questions begin with [CLS] but do not end with [SEP]
            inputs |= {name: inputs[name][:, :-1] for name in ("input_ids", "attention_mask")}
            inputs.pop("token_type_ids", None)
        return inputs

    @torch.inference_mode()
    def answer(self, batch: Batch) -> list[ModelAnswer]:
        tokens_BT, logits = self._generate(self.on_device(batch.inputs), self.settings.max_new_tokens)
        logs_B = self._log_probability(tokens_BT, logits).tolist()
        answers = []
        for row, (tokens_T, log) in enumerate(zip(tokens_BT, logs_B, strict=True)):
            text = clean_answer(self.tokenizer.decode(tokens_T, skip_special_tokens=True))
            probability = float(torch.tensor(log).exp())
            ended = any(token in self.end_ids for token in tokens_T.tolist())
            certain = ended and probability > CERTAIN
            choice = None if batch.choices is None else self._choose(batch, row, text if certain else None)
            answers.append(ModelAnswer(text, probability, choice))
        return answers

    def _generate(self, inputs: dict[str, Tensor], longest: int, **options: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Greedy decoding: new tokens `[B, T]`, and for each of them the logits `[B, V]` that it was taken from."""
        if self.model.config.model_type == "git":
            options["use_cache"] = False  # its positions over cached words were wrong in transformers 5.17
        found = self.model.generate(
            **inputs, max_new_tokens=longest, do_sample=False, num_beams=1, return_dict_in_generate=True,
            output_logits=True, **options,
        )  # fmt: skip
        return found.sequences[:, -len(found.logits) :], found.logits

    def _log_probability(self, tokens_BT: Tensor, logits: Sequence[Tensor]) -> Tensor:
        """log of the probability of the tokens of each row, its first end token included: float32 `[B]`.

        Any end token counts as the end.
        """
        end_E = torch.tensor(self.end_ids, device=tokens_BT.device)
        total_B = torch.zeros(len(tokens_BT), device=tokens_BT.device)
        open_B = torch.ones(len(tokens_BT), dtype=torch.bool, device=tokens_BT.device)
        for tokens_B, logits_BV in zip(tokens_BT.T, logits, strict=True):
            log_BV = logits_BV.float().log_softmax(dim=1)
            ends_B = torch.isin(tokens_B, end_E)
            taken_B = log_BV.gather(1, tokens_B[:, None])[:, 0]
            log_B = torch.where(ends_B, log_BV[:, end_E].logsumexp(dim=1), taken_B)
            total_B += torch.where(open_B, log_B, 0.0)
            open_B &= ~ends_B
        self.require_numbers(total_B)
        return total_B

    def _choose(self, batch: Batch, row: int, certain: str | None) -> str:
        """The most probable choice, the first of several; `certain` is an answer more probable than all others."""
        assert batch.choices is not None
        choices = batch.choices[row]
        same = [choice for choice in choices if clean_answer(choice) == certain]
        if same:
            return same[0]
        log_C = self.choice_log_probabilities(batch.images[row], batch.questions[row], choices)
        return choices[int(log_C.argmax())]

    @torch.inference_mode()
    def choice_log_probabilities(self, image: Image.Image, question: str, choices: Sequence[str]) -> Tensor:
        """log of the probability that the model generates each choice, in any capitals: float32 `[C]`, on the CPU."""
        forms = [(place, tokens) for place, choice in enumerate(choices) for tokens in self._spellings(choice)]
        inputs = self.on_device(self.encode([image], [question]))
        log_C = torch.full((len(choices),), -torch.inf)
        for begin in range(0, len(forms), self.settings.batch_size):
            some = forms[begin : begin + self.settings.batch_size]
            longest = max(len(tokens) for _, tokens in some)
            end = self.end_ids[0]
            forced_BT = torch.tensor([[*tokens, *[end] * (longest + 1 - len(tokens))] for _, tokens in some])
            rows = {name: value.repeat(len(some), *[1] * (value.ndim - 1)) for name, value in inputs.items()}
            log_B = self._forced(rows, forced_BT.to(self.settings.device)).cpu()
            for (place, _), log in zip(some, log_B, strict=True):
                log_C[place] = torch.logaddexp(log_C[place], log)
        return log_C

    def _forced(self, inputs: dict[str, Tensor], tokens_BT: Tensor) -> Tensor:
        """log of the probability of given tokens, each row ending in an end token: float32 `[B]`."""
        from transformers import LogitsProcessorList

        forcing = LogitsProcessorList([_TokenMask(tokens_BT)])
        taken_BT, logits = self._generate(inputs, tokens_BT.shape[1], logits_processor=forcing)
        tokens_BT = tokens_BT[:, : len(logits)]
        before_end_BT = ~torch.isin(tokens_BT, torch.tensor(self.end_ids, device=tokens_BT.device))
        if not torch.equal(taken_BT[before_end_BT], tokens_BT[before_end_BT]):
            raise InputError(f"{self.name}: its generation config forbids tokens of the choices; use --task open-ended")
        return self._log_probability(tokens_BT, logits)

    def _spellings(self, choice: str) -> list[tuple[int, ...]]:
        """The token sequences that a choice may be generated as, each once."""
        before = "" if self.kind == "chat" or self.settings.prompt[-1].isspace() else " "
        texts = (f"{before}{choice}", f"{before}{choice[:1].upper()}{choice[1:]}")
        tokens = (tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
        return list(dict.fromkeys(tokens))


class _TokenMask:
    """A logits processor that lets only the given tokens through, one column a step."""

    def __init__(self, tokens_BT: Tensor) -> None:
        self.tokens_BT, self.step = tokens_BT, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        forced_BV = torch.full_like(scores, -torch.inf)
        forced_BV.scatter_(1, self.tokens_BT[:, self.step : self.step + 1], 0.0)
        self.step += 1
        return forced_BV


def _end_ids(name: str, model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer, as the part that generates is configured."""
    if model.config.model_type == "blip":  # it passes this one to its decoder, whatever the generation config says
        found = model.config.text_config.sep_token_id
    else:
        generator = model if _generates_itself(model) else getattr(model, "language_model", None)
        found = (generator or model).generation_config.eos_token_id
    found = tokenizer.eos_token_id if found is None else found
    ends = [found] if isinstance(found, int) else list(found or [])
    if not ends:
        raise InputError(f"{name}: neither its generation config nor its tokenizer names a token that ends an answer")
    return ends


def _generates_itself(model: Any) -> bool:
    """Whether `generate` is transformers' own rather than one that hands over to a language model inside."""
    from transformers import GenerationMixin

    return type(model).generate is GenerationMixin.generate


def _as_chat(processor: Any, prompt: str) -> str:
    """The prompt as a user's first message about one image, up to where the model goes on."""
    content = [{"type": "image"}, {"type": "text", "text": prompt}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
