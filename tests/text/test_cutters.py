"""Ways of cutting questions into words that an experiment names."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import rjieba
import transformers
from helpers.training import assert_same_run, experiment, forgetting_imports, interrupted_after, make_world, values
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import BertPreTokenizer

from vqa.data.formats import read_dataset
from vqa.errors import InputError, InterruptedRunError
from vqa.experiment import check_experiment
from vqa.runs.load import load_run
from vqa.text.cutters import CUTTERS, word_cutter
from vqa.text.tokenize import tokenize
from vqa.training.run_folder import RunFolder
from vqa.training.train import train

PIECES = ["[UNK]", "what", "is", "the", "col", "##our", "##or", "##s", "of", "red", "?", "shape", "a", "b", "##b"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    with forgetting_imports(tmp_path):
        yield tmp_path


def save_tokenizer(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    made = Tokenizer(WordPiece({piece: number for number, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = Lowercase(), BertPreTokenizer()
    made.enable_truncation(3)  # neither of which says anything of words
    made.enable_padding(length=9)
    made.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=0x2FF)))
def test_chinese_words_leave_other_scripts_as_they_are(text: str) -> None:
    assert word_cutter("jieba").cut(text) == tokenize(text)


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("这只猫是什么颜色?", ["这", "只", "猫", "是", "什么", "颜色"]),
        ("What is 什么颜色 in the MRI?", ["what", "is", "什么", "颜色", "in", "the", "mri"]),
    ],
)
def test_chinese_is_cut_into_words(question: str, words: list[str]) -> None:
    assert word_cutter("jieba").cut(question) == words
    han = [word for word in words if word > "z"]
    assert [word for word in rjieba.cut(question) if word in han] == han


def test_pieces_are_those_of_transformers(tmp_path: Path) -> None:
    file = save_tokenizer(tmp_path / "own")
    reference = transformers.PreTrainedTokenizerFast(tokenizer_file=str(file), unk_token="[UNK]")
    cutter = word_cutter(f"hf:{tmp_path}/own")
    for question in ("What is the colour of a red shape?", "abb B colors, xyz", "", "?? \ud83d"[:3]):
        assert cutter.cut(question) == reference.tokenize(question)
    assert cutter.cut("What colours?") == ["what", "col", "##our", "##s", "?"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("jeiba", "unknown word tokenizer 'jeiba' (did you mean 'jieba'?)"),
        ("hf:{here}/none", "its tokenizer.json cannot be had"),
        ("hf:{here}/empty", "empty/tokenizer.json"),
        ("hf:{here}/damaged", "its tokenizer.json is damaged"),
        ("nowhere:cut", "there is no module 'nowhere'"),
    ],
)
def test_what_cannot_be_had_is_named(here: Path, name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for folder in ("empty", "damaged"):
        (here / folder).mkdir()
    (here / "damaged/tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(InputError) as caught:
        word_cutter(name.format(here=here))
    assert said in str(caught.value)


def test_an_unknown_name_is_refused_with_the_experiment(world: Path, tmp_path: Path) -> None:
    wrong = values(world, tmp_path) | {"words": {"tokenizer": "jeiba"}}
    with pytest.raises(InputError, match=r"words.tokenizer: unknown word tokenizer 'jeiba'.*did you mean 'jieba'"):
        check_experiment(wrong, "own.yaml")


def test_a_run_keeps_the_tokenizer_that_it_was_trained_with(world: Path, tmp_path: Path) -> None:
    file = save_tokenizer(tmp_path / "own")
    folder = RunFolder(train(experiment(world, tmp_path / "runs", words={"tokenizer": f"hf:{file.parent}"})).path)
    vocabulary = load_run(folder.path).words
    assert set(vocabulary.words) <= set(PIECES) and "##or" in vocabulary.words
    file.unlink()
    assert load_run(folder.path).words.cut("What colors?") == ["what", "col", "##or", "##s", "?"]
    folder.words_tokenizer.unlink()
    with pytest.raises(InputError, match=r"words_tokenizer.json: no such file"):
        load_run(folder.path)


def test_a_run_goes_on_though_its_tokenizer_is_gone(world: Path, tmp_path: Path) -> None:
    file = save_tokenizer(tmp_path / "own")
    chosen = {"words": {"tokenizer": f"hf:{file.parent}"}, "training": {"epochs": 2}}
    whole = train(experiment(world, tmp_path / "whole", **chosen))
    plan = experiment(world, tmp_path / "part", **chosen)
    with interrupted_after(8), pytest.raises(InterruptedRunError):
        train(plan)
    file.unlink()
    assert_same_run(train(plan, resume=True), whole)


CUT = "def cut(question):\n    return question.lower().split()\n\n\ndef wrong(question):\n    return question\n"


def test_a_function_from_outside_cuts_questions(world: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "own.py").write_text(CUT)
    folder = train(experiment(world, here / "runs", words={"tokenizer": "own:cut"})).path
    with pytest.raises(InputError, match=r"names code from outside vqa.*word tokenizer own:cut"):
        load_run(folder)
    assert "thing?" in load_run(folder, allow_code=True).words.words
    (here / "own.py").write_text(f"{CUT}\n")
    load_run(folder, allow_code=True)
    assert "the source of word tokenizer 'own:cut', is not what the run was trained with" in capfd.readouterr().out
    with pytest.raises(InputError, match="'own:wrong': must give a list of words"):
        train(experiment(world, here / "other", words={"tokenizer": "own:wrong"}))


def test_every_own_name_cuts_any_question_into_words() -> None:
    for name in CUTTERS:
        assert word_cutter(name).cut("What colour is it?") == ["what", "colour", "is", "it"]
        assert word_cutter(name).cut("") == []


def test_words_that_only_validation_has_are_counted(
    world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = train(experiment(world, tmp_path / "runs", words={"min_count": 40}, training={"epochs": 1})).path
    words = load_run(folder).words
    split = read_dataset("vqa_v2", world / "data", "val")
    cut = [words.cut(split.question.distinct[code]) for code in split.question.codes]
    unknown = [sum(word not in words.index for word in question) for question in cut]
    share = 100 * sum(unknown) / sum(map(len, cut))
    said = f"{sum(map(bool, unknown)):,} of {len(cut):,} validation questions have words that the vocabulary does not"
    assert sum(unknown) and said in (printed := " ".join(capfd.readouterr().out.split()))
    assert f"{share:.2g}% of their words" in printed
