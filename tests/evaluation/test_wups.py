"""WUPS on a miniature corpus in WordNet's own file format, with every figure worked out by hand."""

import os
import sys
from pathlib import Path

import pytest
from helpers.metric import qa_dataset
from helpers.wordnet import write_wordnet

from vqa.data.dataset import Strings
from vqa.errors import InputError
from vqa.evaluation.wups import WordNet, answer_words, answer_wups, list_accuracy, open_wordnet, wups


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> WordNet:
    pytest.importorskip("nltk")
    return open_wordnet(write_wordnet(tmp_path_factory.mktemp("corpora") / "wordnet"))


@pytest.mark.parametrize(
    ("word", "other", "similarity"),
    [
        ("table", "chair", 2 * 3 / (4 + 4)),  # they meet at furniture, depth 3; both lie at depth 4
        ("table", "night_stand", 2 * 4 / (4 + 5)),  # the first is above the second
        ("sofa", "couch", 1),  # one sense
        ("dog", "table", 2 * 1 / (3 + 4)),  # they meet at the root
        ("dog", "chair", 2 * 3 / (3 + 4)),  # by the second sense of "chair", a kind of dog
        ("chairs", "sofa", 2 * 3 / (4 + 4)),  # WordNet's own plural rule
        ("dog", "unheard", 0),
    ],
)
def test_similarity_of_words(wordnet: WordNet, word: str, other: str, similarity: float) -> None:
    assert wordnet.version == "3.0"
    assert wordnet.similarity(word, other) == pytest.approx(similarity)
    assert wordnet.similarity(other, word) == pytest.approx(similarity)


@pytest.mark.parametrize(
    ("answer", "truth", "at_0", "at_09"),
    [
        ("table", "table", 1, 1),
        ("unheard", "unheard", 1, 1),
        ("chair", "table", 0.75, 0.075),
        ("couch", "sofa", 1, 1),
        ("unheard", "table", 0, 0),
        ("night stand", "night_stand", 1, 1),
        ("Dog, table", "table,dog", 1, 1),
        # Given -> true: 1 x 0.75. True -> given: 1. The lesser counts.
        ("table, chair", "table", 0.75, 0.075),
        # Given -> true: 1. True -> given: 1 x 2/7 (dog to table).
        ("table", "table, dog", 2 / 7, 0.2 / 7),
        ("", "table", 0, 0),
    ],
)
def test_lists_of_words(wordnet: WordNet, answer: str, truth: str, at_0: float, at_09: float) -> None:
    assert answer_wups(answer, truth, wordnet.similarity, 0.0) == pytest.approx(at_0)
    assert answer_wups(answer, truth, wordnet.similarity, 0.9) == pytest.approx(at_09)


@pytest.mark.skipif("VQA_WORDNET" not in os.environ, reason="VQA_WORDNET names no folder with WordNet 3.0")
def test_published_similarities_on_wordnet_itself() -> None:
    corpus = open_wordnet(Path(os.environ["VQA_WORDNET"]))
    assert corpus.version == "3.0"
    published = {  # nltk's documentation; Malinowski and Fritz 2014, where they choose the threshold
        ("dog", "cat"): 0.857, ("curtain", "blinds"): 0.94, ("carton", "box"): 0.94,
        ("stove", "fire_extinguisher"): 0.82,
    }  # fmt: skip
    for words, similarity in published.items():
        assert corpus.similarity(*words) == pytest.approx(similarity, abs=0.005)
    assert answer_wups("curtain", "blinds", corpus.similarity, 0.9) == corpus.similarity("curtain", "blinds")
    assert answer_wups("dog", "cat", corpus.similarity, 0.9) == pytest.approx(0.0857, abs=0.0005)


def test_a_whole_split(wordnet: WordNet) -> None:
    dataset = qa_dataset([["table"], ["table, dog"], ["sofa"], ["sofa"]])
    predictions = Strings.of(["chair", "dog, table", None, "couch"])
    assert wups(dataset, predictions, wordnet.similarity, 0.0).tolist() == pytest.approx([0.75, 1, 0, 1])
    assert list_accuracy(dataset, predictions).tolist() == [0, 1, 0, 0]


def test_words_of_an_answer() -> None:
    assert answer_words(" Night stand ,lamp,, lamp") == ("night_stand", "lamp")
    assert answer_words("") == ()


def test_bad_input_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = qa_dataset([["yes"] * 10])
    with pytest.raises(InputError, match="up to 10 human answers a question"):
        list_accuracy(dataset, Strings.of(["yes"]))
    with pytest.raises(InputError, match="threshold 90"):
        wups(dataset, Strings.of(["yes"]), lambda a, b: 0.0, 90)
    pytest.importorskip("nltk")
    with pytest.raises(InputError, match=r"not a WordNet corpus: lexnames, data\.noun"):
        open_wordnet(tmp_path)
    folder = write_wordnet(tmp_path / "wordnet")
    (folder / "lexnames").write_text("nonsense\n")
    with pytest.raises(InputError, match="the WordNet corpus is damaged"):
        open_wordnet(folder)
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    def refuse(*given: object, **options: object) -> None:
        raise PermissionError("writable by another account (chmod go-w)")

    monkeypatch.setattr(WordNetCorpusReader, "__init__", refuse)
    with pytest.raises(InputError, match=r"wordnet: the WordNet corpus cannot be read: .*chmod go-w"):
        open_wordnet(folder)
    monkeypatch.setitem(sys.modules, "nltk.corpus.reader.wordnet", None)
    with pytest.raises(InputError, match=r"pip install 'vqa\[wups\]'"):
        open_wordnet(folder)


@pytest.mark.parametrize(
    "name", ["lexnames", "data.noun", "index.noun", "data.verb", "index.verb", "data.adj", "index.adv", "noun.exc"]
)
def test_windows_line_ends_are_one_sentence_or_are_read(tmp_path: Path, name: str) -> None:
    pytest.importorskip("nltk")
    folder = write_wordnet(tmp_path / "wordnet")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content.replace(b"\n", b"\r\n"))
    if name == "lexnames" or not content:
        assert open_wordnet(folder).similarity("sofa", "couch") == 1
        return
    with pytest.raises(InputError, match=rf"{name}: has the line ends of Windows"):
        open_wordnet(folder)


@pytest.mark.parametrize("name", ["data.noun", "index.noun", "lexnames"])
def test_a_damaged_corpus_is_a_sentence_or_a_number(tmp_path: Path, name: str) -> None:
    pytest.importorskip("nltk")
    folder = write_wordnet(tmp_path / "wordnet")
    whole, refused = (folder / name).read_bytes(), 0
    for place in range(0, len(whole), max(1, len(whole) // 40)):
        for damaged in (whole[:place], whole[:place] + b"@@" + whole[place + 2 :], whole[:place] + whole[place + 3 :]):
            (folder / name).write_bytes(damaged)
            try:
                corpus = open_wordnet(folder)
                assert all(0 <= corpus.similarity("dog", other) <= 1 for other in ("table", "sofa", "chair"))
            except InputError as error:
                refused += 1
                assert "\n" not in str(error) and "WordNet corpus" in str(error)
    assert refused
