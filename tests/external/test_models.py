"""External models against transformers itself, asked one question at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.external import CHAT, WRITERS, save_blip, save_vilt
from PIL import Image

from vqa.data.dataset import QADataset
from vqa.data.formats import read_dataset
from vqa.data.synthetic import generate_dataset
from vqa.errors import InputError
from vqa.evaluation.multiple_choice import choice_classes, choice_scores, pick_choices
from vqa.external.ask import ask, plan_batches
from vqa.external.contracts import Batch, clean_answer
from vqa.external.generation import GenerativeModel
from vqa.external.load import load_external

TOKENS = 4  # longest written answer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    generate_dataset(folder / "data", 40, 0, "real", 64)
    return folder


@pytest.fixture(scope="module")
def dataset(world: Path) -> QADataset:
    """Some of the val questions, about images of different shapes."""
    found = read_dataset("vqa_v2", world / "data", "val").take(np.arange(18))
    for path, size in zip(found.images.paths, ((64, 64), (96, 64), (48, 80)), strict=False):
        with Image.open(path) as opened:
            opened.resize(size).save(path)
    return found


def ask_all(name: Path, dataset: QADataset, folder: Path, batch_size: int, **options: Any) -> Any:
    model = load_external(str(name), prompt=options.get("prompt"), batch_size=batch_size, max_new_tokens=TOKENS)
    return model, ask(model, dataset, ["open-ended", "multiple-choice"], folder, workers=2, command="again")[0]


def questions_of(dataset: QADataset) -> list[tuple[Image.Image, str, list[str]]]:
    assert dataset.choices is not None
    return [
        (Image.open(dataset.images.paths[dataset.image_row_N[row]]), dataset.question.at(row), dataset.choices.row(row))
        for row in range(len(dataset))
    ]


def test_a_classifier_gives_what_transformers_gives_one_by_one(world: Path, dataset: QADataset, tmp_path: Path) -> None:
    from transformers import ViltForQuestionAnswering, ViltProcessor

    assert dataset.majority is not None and dataset.choices is not None
    save_vilt(world / "vilt", dataset, list(dataset.majority.distinct)[:5])
    asked, given = ask_all(world / "vilt", dataset, tmp_path, batch_size=8)
    assert asked.kind == "classification" and asked.answers is not None
    model, processor = (kind.from_pretrained(world / "vilt") for kind in (ViltForQuestionAnswering, ViltProcessor))
    probability = []
    for image, question, _ in questions_of(dataset):
        with torch.inference_mode():
            logits = model.eval()(**processor(image, question, return_tensors="pt")).logits[0]
        probability.append(logits.double().softmax(dim=0).numpy())
    expected_NA = np.stack(probability)
    names = [model.config.id2label[label] for label in expected_NA.argmax(axis=1).tolist()]
    assert [given.open_ended.at(row) for row in range(len(dataset))] == names and len(set(names)) > 1
    np.testing.assert_allclose(given.confidence_N, expected_NA.max(axis=1), atol=1e-5)
    scores = choice_scores(dataset.choices, choice_classes(dataset.choices, asked.answers), expected_NA)
    picked, chosen = pick_choices(dataset.choices, scores), given.by_task["multiple-choice"]
    assert [chosen.at(row) for row in range(len(dataset))] == [picked.at(row) for row in range(len(dataset))]


def test_a_question_longer_than_a_classifier_takes_is_cut_and_said(
    dataset: QADataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import ViltForQuestionAnswering, ViltProcessor

    assert dataset.majority is not None
    save_vilt(tmp_path / "vilt", dataset, list(dataset.majority.distinct)[:5], longest=6)
    _, given = ask_all(tmp_path / "vilt", dataset, tmp_path, batch_size=8)
    assert "distinct questions are longer than the 6 tokens" in capsys.readouterr().out
    model, processor = (kind.from_pretrained(tmp_path / "vilt") for kind in (ViltForQuestionAnswering, ViltProcessor))
    for row, (image, question, _) in enumerate(questions_of(dataset)):
        tokens = processor.tokenizer(question)["input_ids"]
        cut = torch.tensor([tokens if len(tokens) <= 6 else [*tokens[:5], tokens[-1]]])  # [SEP] stays last
        pixels = processor.image_processor(image, return_tensors="pt")
        with torch.inference_mode():
            logits = model.eval()(input_ids=cut, **pixels).logits[0]
        assert given.confidence_N[row] == pytest.approx(logits.softmax(dim=0).max().item(), abs=1e-5)


def direct(asked: GenerativeModel, processor: Any, image: Image.Image, question: str) -> dict[str, torch.Tensor]:
    """One question's inputs, as the model cards prepare them."""
    text = asked.settings.prompt.replace("{question}", question)
    kind = asked.model.config.model_type
    if kind in CHAT:
        content = [{"type": "image", "image": image}, {"type": "text", "text": text}]
        return processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True,
            return_tensors="pt",
        )  # fmt: skip
    if kind == "git":
        ids = [processor.tokenizer.cls_token_id, *processor.tokenizer(text, add_special_tokens=False)["input_ids"]]
        return {**processor(images=image, return_tensors="pt"), "input_ids": torch.tensor([ids])}
    return processor(images=image, text=text, return_tensors="pt")


def forced(asked: GenerativeModel, inputs: dict[str, torch.Tensor], tokens: list[int]) -> float:
    """log of the probability of the tokens and the end, by one pass over prompt and answer together."""
    model, ids = asked.model, torch.tensor([tokens])
    with torch.inference_mode():
        if model.config.model_type == "blip":
            seen = model.vision_model(pixel_values=inputs["pixel_values"])[0]
            read = model.text_encoder(inputs["input_ids"], encoder_hidden_states=seen)[0]
            ids = torch.cat([torch.tensor([[model.decoder_start_token_id]]), ids], dim=1)
            logits = model.text_decoder(ids, encoder_hidden_states=read).logits[0]
        else:
            given = {name: value for name, value in inputs.items() if name != "attention_mask"}
            given["input_ids"] = torch.cat([inputs["input_ids"], ids], dim=1)
            for name in ("mm_token_type_ids", "token_type_ids"):  # words follow words
                if name in given:
                    given[name] = torch.cat([given[name], torch.zeros_like(ids)], dim=1)
            logits = model(**given).logits[0]
    last = logits[-len(tokens) - 1 :].log_softmax(dim=1)
    return float(sum(last[step, token] for step, token in enumerate([*tokens, asked.end_ids[0]])))


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_gives_what_transformers_gives_one_by_one(
    world: Path, dataset: QADataset, tmp_path: Path, name: str
) -> None:
    from transformers import AutoProcessor

    WRITERS[name](world / name, dataset)
    asked, given = ask_all(world / name, dataset, tmp_path, batch_size=8)
    assert asked.kind == ("chat" if name in CHAT else "generative")
    processor = AutoProcessor.from_pretrained(world / name)
    chosen = given.by_task["multiple-choice"]
    written = []
    for row, (image, question, choices) in enumerate(questions_of(dataset)):
        inputs = direct(asked, processor, image, question)
        with torch.inference_mode():
            found = asked.model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, use_cache=name != "git")
            found = found[0].tolist()
        prompt = inputs["input_ids"][0].tolist()
        new = found[1:] if name == "blip" else found[len(prompt) :] if found[: len(prompt)] == prompt else found
        written.append(clean_answer(processor.tokenizer.decode(new, skip_special_tokens=True)))
        if row % 6:
            continue
        if new[-1] in asked.end_ids:
            log = forced(asked, inputs, new[: new.index(asked.end_ids[0])])
            assert given.confidence_N[row] == pytest.approx(np.exp(log), rel=1e-3)
        expected = []
        for choice in choices:
            texts = [f" {choice}", f" {choice[0].upper()}{choice[1:]}"]
            forms = {tuple(processor.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts}
            expected.append(np.logaddexp.reduce([forced(asked, inputs, list(form)) for form in forms]))
        log_C = asked.choice_log_probabilities(image, question, choices).numpy()
        np.testing.assert_allclose(log_C, expected, rtol=1e-4)
        assert chosen.at(row) == choices[int(np.argmax(expected))]
    assert [given.open_ended.at(row) for row in range(len(dataset))] == written and len(set(written)) > 1


def test_an_answer_more_probable_than_one_half_is_the_choice_that_scoring_all_finds(
    world: Path, dataset: QADataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS["blip"](world / "blip", dataset)
    model = load_external(str(world / "blip"), prompt=None, batch_size=len(dataset), max_new_tokens=TOKENS)
    assert isinstance(model, GenerativeModel)
    images, questions, choices = map(list, zip(*questions_of(dataset), strict=True))
    _teach(model, images[:6], questions[:6], ["yes", "no"] * 3)
    scored, score = [], model.choice_log_probabilities

    def counted(image: Image.Image, question: str, choices: list[str]) -> torch.Tensor:
        scored.append(question)
        return score(image, question, choices)

    monkeypatch.setattr(model, "choice_log_probabilities", counted)
    rows = list(range(len(dataset)))
    inputs = [model.encode([images[row]], [questions[row]]) for row in rows]
    said = [model.answer(Batch([row], [images[row]], [questions[row]], [choices[row]], inputs[row]))[0] for row in rows]
    assert len(scored) < len(dataset)
    best = [choices[row][int(score(images[row], questions[row], choices[row]).argmax())] for row in rows]
    assert [one.choice for one in said] == best


def _teach(model: GenerativeModel, images: list[Image.Image], questions: list[str], answers: list[str]) -> None:
    """Fine-tune a BLIP for a moment, so that it is sure of some answers."""
    optimizer = torch.optim.Adam(model.model.parameters(), lr=0.01)
    texts = model.tokenizer(answers, padding=True, padding_side="right", return_tensors="pt")["input_ids"]
    inputs = model.processor(images=images, text=questions, padding=True, padding_side="right", return_tensors="pt")
    for _ in range(40):
        optimizer.zero_grad()
        model.model(**inputs, labels=texts.masked_fill(texts == 0, -100), decoder_input_ids=texts).loss.backward()
        optimizer.step()


def test_batches_hold_prompts_of_one_length_and_every_question_once(world: Path, dataset: QADataset) -> None:
    WRITERS["blip"](world / "blip", dataset)
    model = load_external(str(world / "blip"), prompt=None, batch_size=5, max_new_tokens=TOKENS)
    plan = plan_batches(model, dataset)
    assert sorted(row for rows in plan for row in rows) == list(range(len(dataset)))
    assert max(map(len, plan)) <= 5
    assert all(len({model.prompt_length(dataset.question.at(row)) for row in rows}) == 1 for rows in plan)
    batch = model.encode([Image.new("RGB", (40, 40))] * len(plan[0]), [dataset.question.at(row) for row in plan[0]])
    assert batch["attention_mask"].all()


def test_a_prompt_is_what_the_model_reads(world: Path, dataset: QADataset, tmp_path: Path) -> None:
    WRITERS["llava"](world / "llava", dataset)
    (_, plain), (_, other) = (
        ask_all(world / "llava", dataset, tmp_path, batch_size=8, prompt=prompt)
        for prompt in (None, "Question: {question} Short answer:")
    )
    assert not np.array_equal(plain.confidence_N, other.confidence_N)
    assert len(list(tmp_path.glob("answers_*.jsonl"))) == 2
    with pytest.raises(InputError, match=r"has no \{question\}"):
        load_external(str(world / "llava"), prompt="What is this?", batch_size=8, max_new_tokens=TOKENS)


def test_what_cannot_answer_is_refused(world: Path, dataset: QADataset, tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    save_blip(tmp_path / "captioner", dataset, captioner=True)
    with pytest.raises(InputError, match=r"is no BlipForQuestionAnswering: .* of its weights are not in the files"):
        load_external(str(tmp_path / "captioner"), prompt=None, batch_size=8, max_new_tokens=TOKENS)
    weights = tmp_path / "captioner" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"its weights cannot be loaded: .*file not fully covered"):
        load_external(str(tmp_path / "captioner"), prompt=None, batch_size=8, max_new_tokens=TOKENS)
    text_only = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    BertModel(text_only).save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match="bert"):
        load_external(str(tmp_path / "bert"), prompt=None, batch_size=8, max_new_tokens=TOKENS)
    with pytest.raises(InputError, match="no model of transformers"):
        load_external(str(tmp_path / "nothing"), prompt=None, batch_size=8, max_new_tokens=TOKENS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Yes.", "yes"), ("\n Red bus \nIt is parked", "red bus"), ("3", "3"), (" ", ""), ("e.g.", "e.g"), ("...", "..")],
)
def test_answers_are_cleaned(text: str, expected: str) -> None:
    assert clean_answer(text) == expected
