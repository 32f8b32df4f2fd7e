"""The plan of a data set, against the ceilings and lengths found question by question."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.formats import MINIATURES, annotations, questions, write
from PIL import Image

from vqa.data.dataset import Strings
from vqa.data.formats.official import read_official
from vqa.errors import InputError
from vqa.evaluation.accuracy import Protocol, score
from vqa.evaluation.floors import vocabulary_ceiling
from vqa.features.encoders.registry import build_image_encoder
from vqa.planning.plan import COMMON_FEATURES, Features, cache_row, plan, plan_vocabulary, plot, question_lengths
from vqa.planning.plan_report import run_plan
from vqa.text.vocabulary import AnswerVocabulary

WORDS = ["yes", "Yes.", "no", "two", "2", "a cat", "cat", "red", "dark red", "blue"]


def random_annotations(path: Path, ids: list[int], seed: int) -> Path:
    """Annotations with ten random answers a question, some equal only after normalisation."""
    random = np.random.default_rng(seed)
    file = annotations(ids, "mscoco", "val2014")
    for row in file["annotations"]:
        said = [WORDS[min(int(k), 9)] for k in random.geometric(0.25, 10) - 1]
        row["multiple_choice_answer"] = max(said, key=said.count)
        row["answers"] = [{"answer": answer} for answer in said]
    return write(path, file)


@pytest.mark.parametrize("protocol", ["2021", "2015"])
def test_ceilings_are_the_scores_of_the_best_answers_of_each_vocabulary(tmp_path: Path, protocol: Protocol) -> None:
    ids = list(range(200))
    asked = write(tmp_path / "q.json", questions(ids, "mscoco", "val2014"))
    train = read_official(asked, random_annotations(tmp_path / "a.json", ids, 0))
    held = read_official(asked, random_annotations(tmp_path / "b.json", ids, 1))
    rows, known = plan_vocabulary(train, held, (1, 2, 4, 1000), protocol)
    assert train.majority is not None and held.majority is not None
    counts = {text: list(train.majority.codes).count(code) for code, text in enumerate(train.majority.distinct)}
    assert known == len(counts) and [row.answers for row in rows] == [1, 2, 4, known]
    for row in rows:
        vocabulary = AnswerVocabulary.build(counts, size=row.answers)
        best = score(held, vocabulary_ceiling(held, vocabulary, protocol), protocol)
        assert row.ceiling == best.overall and row.ceiling_per_answer_type == best.per_answer_type
        within = [held.majority.at(question) in vocabulary.index for question in ids]
        assert row.coverage == pytest.approx(100 * sum(within) / len(ids))
        brute = [
            max(
                score(held.take(np.array([q])), Strings.of([text]), protocol).accuracy_N[0]
                for text in vocabulary.answers
            )
            for q in ids[:40]
        ]
        part = plan_vocabulary(train, held.take(np.arange(40)), (row.answers,), protocol)[0][0]
        assert part.ceiling == pytest.approx(100 * np.mean(brute), abs=0.006)
    ceilings = [row.ceiling for row in rows]
    assert ceilings == sorted(ceilings) and ceilings[-1] > ceilings[0]
    assert set(rows[0].ceiling_per_answer_type) == {"yes/no", "number", "other"}


def test_lengths_count_every_question_not_every_wording(tmp_path: Path) -> None:
    dataset = read_official(write(tmp_path / "q.json", questions(list(range(10)), "mscoco", "val2014")))
    texts = ["is it"] * 8 + ["what is this big red thing"] * 2
    words, lengths = question_lengths(replace(dataset, question=Strings.of(texts)))
    assert words == 7 and lengths[50] == 2 and lengths[100] == 6 == lengths[90]


def test_caches_of_all_coco_images_take_what_is_known() -> None:
    sizes = [cache_row(Features("vgg16", "", 0, regions, channels), 123_287).float16_bytes
             for regions, channels in ((1, 4096), (49, 512), (196, 512))]  # fmt: skip
    assert [round(size / 1e9, 1) for size in sizes] == [1.0, 6.2, 24.7]


@pytest.mark.parametrize(
    "features", [one for one in COMMON_FEATURES if one.encoder.startswith(("detector", "squeezenet"))]
)
def test_planned_shapes_are_those_of_the_encoders(features: Features) -> None:
    made = build_image_encoder(features.encoder, layer=features.layer, image_size=features.image_size, weights="random")
    assert (made.regions, made.channels) == (features.regions, features.channels)


def test_a_plan_takes_the_validation_split_or_holds_images_out_and_is_plotted(tmp_path: Path) -> None:
    MINIATURES["vqa_v1"](tmp_path / "v1")
    made = plan(tmp_path / "v1", "vqa_v1")
    assert made.evaluated == "vqa_v1 val2014" and made.questions == 5 and made.images == 3
    plot(made, tmp_path / "plots" / "plan.png")
    (tmp_path / "plots" / "plan.png").rename(tmp_path / "plan.png")
    with pytest.raises(InputError, match=r"plan\.txt: a plot ends in \.png, \.svg, \.pdf"):
        plot(made, tmp_path / "plan.txt")
    with pytest.raises(InputError, match=r"plan\.png"):
        plot(made, tmp_path / "plan.png" / "plan.png")
    with Image.open(tmp_path / "plan.png") as image:
        assert image.width > 500
    (tmp_path / "own.csv").write_text(
        "image,question,answer\n" + "".join(f"{n}.png,what?,a{n % 3}\n" for n in range(20))
    )
    (tmp_path / "own.csv").rename(tmp_path / "train.csv")
    assert plan(tmp_path, "table").evaluated == "table train-held-out"
    with pytest.raises(InputError, match="answers of this split are hidden, so there is nothing to plan with"):
        plan(tmp_path / "v1", "vqa_v1", evaluated="test")


@pytest.mark.parametrize("name", ["plan.jpg", "plan", "plan.txt"])
def test_an_ending_that_is_no_plot_is_refused_before_the_data_are_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"a plot ends in \.png, \.svg, \.pdf"):
        run_plan(tmp_path / "no_data", "vqa_v2", plot_file=tmp_path / name)
