"""The report page: complete, safe against the text of the data, and needing nothing outside its one file."""

import base64
import io
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from vqa.data.dataset import ImageTable, QADataset, Strings
from vqa.data.images import Framing
from vqa.errors import InputError
from vqa.evaluation.accuracy import score
from vqa.evaluation.report.confusion import confusions
from vqa.evaluation.report.figures import Series, attention_overlay, brightest_place, fit, line_chart
from vqa.evaluation.report.page import (
    Curve,
    Example,
    Guess,
    Report,
    example_rows,
    human_answers,
    write_report,
)
from vqa.evaluation.scores import ModelScores, accuracy_table, question_type_table
from vqa.features.cache.reader import square_grid
from vqa.tables import Column, Row, Table, below_floor, render_markdown, table_json
from vqa.training.tracking.evaluation import predictions_table

HOSTILE = (
    "<script>alert('x')</script><img src=http://evil.example/x onerror=\"alert(1)\"> $\\frac{a}{b}$ {{ 7*7 }} & ]]>"
)
VOID = {"meta", "img", "br", "link", "input", "hr", "use"}


def dataset(questions: list[tuple[str, str, str]], images: int = 4) -> QADataset:
    """A split from (question type, answer type, answer of all ten humans)."""
    count = len(questions)
    types, kinds, answers = zip(*questions, strict=True)
    return QADataset(
        format="table",
        split="val",
        question_id_N=np.arange(count, dtype=np.int64),
        image_row_N=(np.arange(count) % images).astype(np.int32),
        images=ImageTable(tuple(map(str, range(images))), tuple(Path(f"{i}.jpg") for i in range(images))),
        question=Strings.of(["?"] * count),
        answers=Strings.of_rows([[answer] * 10 for answer in answers], 10),
        majority=Strings.of(answers),
        question_type=Strings.of(types),
        answer_type=Strings.of(kinds),
    )


class Page(HTMLParser):
    """Every tag with its attributes, the text outside style sheets, and a check that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    image = Image.new("RGB", (224, 160), (200, 190, 170))
    ImageDraw.Draw(image).ellipse((30, 30, 90, 90), fill=(200, 40, 40))
    path = tmp_path / "image.jpg"
    image.save(path)
    return path


def full_report(image: Path, text: str) -> Report:
    """A report of every part, in which every string of the data is `text`."""
    data = dataset([(text, "other", text), (text, "other", "b"), ("how many", "number", "2")] * 5)
    truth = score(data, data.majority or Strings.of([]))
    wrong = score(data, Strings.of([text] * len(data)))
    scored = [
        ModelScores("one", truth, wrong),
        ModelScores(text, wrong, wrong),
        ModelScores(text, truth, None, "ceiling"),
    ]
    looks = np.random.default_rng(0).random((2, 49))
    example = Example(
        image,
        text,
        (Guess(text, 0.7), Guess("blue", 0.2)),
        ((text, 9), ("navy", 1)),
        0.9,
        looks / looks.sum(axis=1, keepdims=True),
        (7, 7),
        text,
        ((text, text, 0.3),),
        attention_name="glimpse",
    )
    return Report(
        title=text,
        summary=(text, "and more"),
        facts=(("Seeds", "1, 2"), (text, text)),
        tables=(accuracy_table(scored, data=text, note=text), question_type_table(scored, "open-ended", data=text)),
        curves=(Curve(text, (1, 2), (20.0, 50.0), (3.0, 1.0)), Curve("two", (1, 2), (10.0, float("nan")), (2.5, 2.0))),
        confusions=tuple(confusions(data, Strings.of([text] * len(data)))),
        examples=(example,) * 12,
        subject=text,
    )


def written(tmp_path: Path, report: Report) -> str:
    write_report(tmp_path / "report.html", report)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_page_has_every_part_and_is_accessible(tmp_path: Path, image: Path) -> None:
    text = written(tmp_path, full_report(image, "what color"))
    page = Page(text)
    assert len(text) < 4_000_000
    assert page.named("html") == [{"lang": "en"}]
    assert len(page.named("h1")) == 1
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes and "-" in attributes["id"]]
    assert len(ids) == len(set(ids))
    for link in page.named("a"):
        assert any(attributes.get("id") == link["href"].removeprefix("#") for _, attributes in page.tags)
    images = page.named("img")
    assert len(images) == 12 * 3
    assert all(image["alt"] for image in images)
    assert all(svg["role"] == "img" and "two ends at" in svg["aria-label"] for svg in page.named("svg"))
    assert {head["scope"] for head in page.named("th")} == {"col", "row", "colgroup"}
    for reference in ("aria-labelledby", "aria-describedby"):
        for _, attributes in page.tags:
            if reference in attributes:
                assert f'id="{attributes[reference]}"' in text
    for words in (
        "protocol of 2021",
        "50.00",
        "ceiling",
        "floor" * 0,
        "× 9",
        "70.0%",
        "partly, 90%",
        "attention, glimpse 2",
    ):
        assert words in page.text, words
    first = io.BytesIO(base64.b64decode(images[0]["src"].removeprefix("data:image/jpeg;base64,")))
    assert Image.open(first).size == (320, 229)


def test_hostile_text_stays_text(tmp_path: Path, image: Path) -> None:
    plain = Page(written(tmp_path, full_report(image, "what color")))
    text = written(tmp_path, full_report(image, HOSTILE))
    page = Page(text)
    assert HOSTILE in page.text
    assert page.named("script") == []
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags], "the data changed the structure of the page"
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_nothing_outside_the_file_is_asked_for(tmp_path: Path, image: Path) -> None:
    text = written(tmp_path, full_report(image, "what color"))
    page = Page(text)
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            if name in {"src", "href", "xlink:href", "srcset", "poster", "action", "data"}:
                assert value.startswith(("#", "data:image/")), (tag, name, value[:80])
    assert set(re.findall(r"https?://[^\s\"'<)]*", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }, "only the names of SVG's vocabulary, which no browser fetches"
    assert "@import" not in text
    assert all(address.startswith("#") for address in re.findall(r"url\(([^)]*)\)", text))
    policy = next(meta["content"] for meta in page.named("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'")


def test_same_report_is_the_same_file_and_empty_parts_are_left_out(tmp_path: Path, image: Path) -> None:
    report = full_report(image, "what color")
    assert written(tmp_path, report) == written(tmp_path, report)
    page = Page(written(tmp_path, Report("Nothing yet")))
    assert page.named("section") == page.named("a") == page.named("table") == []


def test_missing_images_are_said_and_broken_ones_refused(tmp_path: Path, image: Path) -> None:
    weights_HR = np.array([[0.5, 0.2, 0.2, 0.1]])
    example = Example(tmp_path / "gone.jpg", "?", (), (), 0.0, attention_HR=weights_HR, grid=(2, 2))
    text = written(tmp_path, Report("t", examples=(example, replace(example, image=image))))
    assert "1 of the 2 images are not on the disk" in text
    assert "Not shown: the image gone.jpg was not on the disk." in text
    assert len(Page(text).named("img")) == 2  # the other one, and where the model looked on it
    (tmp_path / "gone.jpg").write_bytes(image.read_bytes()[:100])
    with pytest.raises(InputError, match=r"gone\.jpg.*not a readable image"):
        write_report(tmp_path / "r.html", Report("t", examples=(example,)))
    assert not (tmp_path / "r.html").exists()


def luminance(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L"), dtype=np.float64)


@pytest.mark.parametrize(("grid", "size"), [((7, 7), (224, 224)), ((3, 5), (100, 60)), ((14, 14), (97, 203))])
@pytest.mark.parametrize("background", [(240, 240, 240), (128, 60, 30), (10, 10, 10)])
def test_overlay_is_bright_where_attention_is_high(
    grid: tuple[int, int], size: tuple[int, int], background: tuple[int, int, int]
) -> None:
    rows, columns = grid
    for row, column in ((0, columns - 1), (rows - 1, 0), (rows // 2, columns // 2)):
        weights = np.full((rows, columns), 0.01)
        weights[row, column] = 1.0
        light = luminance(attention_overlay(Image.new("RGB", size, background), weights.ravel(), grid))
        assert light.shape == (size[1], size[0])
        y, x = int((row + 0.5) / rows * size[1]), int((column + 0.5) / columns * size[0])
        far_y, far_x = (0 if y > size[1] / 2 else size[1] - 1), (0 if x > size[0] / 2 else size[0] - 1)
        assert light[y, x] > light[far_y, far_x] + 60
        brightest_y, brightest_x = np.unravel_index(light.argmax(), light.shape)
        assert abs(brightest_y - y) <= size[1] / rows
        assert abs(brightest_x - x) <= size[0] / columns


@pytest.mark.parametrize("size", [(200, 120), (120, 200), (77, 301)])
@pytest.mark.parametrize("kept", [1.0, 0.875])
def test_attention_on_a_crop_lies_where_the_crop_is(size: tuple[int, int], kept: float) -> None:
    """A region's brightest pixel, found back through the resizing and cropping before the encoder."""
    width, height = size
    grid, framing = (7, 7), Framing("centre-crop", kept)
    side = kept * min(size)
    for cell in (0, 6, 24, 45):
        weights = np.full(49, 0.01)
        weights[cell] = 1.0
        overlay = attention_overlay(Image.new("RGB", size, (60, 60, 60)), weights, grid, framing)
        light = luminance(overlay)
        seen = np.abs(np.arange(width) - (width - 1) / 2)[None] < side / 2 - 2
        seen = seen & (np.abs(np.arange(height) - (height - 1) / 2)[:, None] < side / 2 - 2)
        y, x = np.unravel_index(np.where(seen, light, -1).argmax(), light.shape)
        row, column = divmod(cell, 7)
        assert abs(x - ((width - side) / 2 + (column + 0.5) / 7 * side)) < side / 14 + 2
        assert abs(y - ((height - side) / 2 + (row + 0.5) / 7 * side)) < side / 14 + 2
        outside = np.abs(np.arange(height) - height / 2)[:, None] > side / 2 + 2
        outside = outside | (np.abs(np.arange(width) - width / 2)[None] > side / 2 + 2)
        assert light[outside].min() > 190  # faded: the model never saw it


def test_attention_on_a_letterbox_leaves_its_bars_out() -> None:
    """Of 6 x 6 regions on an image half as high as wide, the middle three rows lie on it, each twice as high."""
    for row in range(6):
        weights = np.zeros((6, 6))
        weights[row] = 1.0
        light = luminance(attention_overlay(Image.new("RGB", (120, 60)), weights, (6, 6), Framing("letterbox")))
        place = (row + 0.5) * 20 - 30
        if 0 <= place < 60:
            assert abs(int(light.mean(axis=1).argmax()) - place) <= 10
        else:
            assert light[30].max() < 20
    assert brightest_place(np.eye(36)[20], (6, 6), Framing("letterbox"), (120, 60)) == "lower centre"


def test_image_stays_recognisable_under_attention() -> None:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    image = coarse.resize((160, 160), Image.Resampling.NEAREST)
    weights = rng.random(49)
    overlaid = attention_overlay(image, weights / weights.sum(), (7, 7))
    correlation = np.corrcoef(luminance(image).ravel(), luminance(overlaid).ravel())[0, 1]
    assert correlation > 0.6


def test_overlay_of_even_attention_is_even_and_of_one_region_is_none() -> None:
    image = Image.new("RGB", (60, 40), (90, 120, 30))
    assert np.ptp(luminance(attention_overlay(image, np.full(49, 1 / 49), (7, 7)))) <= 1
    alone = attention_overlay(image, np.ones(1), (1, 1))
    assert np.array_equal(np.asarray(alone), np.asarray(image))
    dark = luminance(attention_overlay(image, np.zeros(4), (2, 2)))
    assert dark.max() < luminance(image).min()
    assert attention_overlay(image.convert("P"), np.ones(4), (2, 2)).mode == "RGB"


@pytest.mark.parametrize("weights", [np.ones(36), np.array([1, 2, 3, float("nan")]), np.array([1, 2, 3, -1.0])])
def test_overlay_refuses_weights_that_cannot_be_drawn(weights: np.ndarray) -> None:
    with pytest.raises(InputError, match="attention"):
        attention_overlay(Image.new("RGB", (8, 8)), weights, (2, 2))


def test_places_and_grids() -> None:
    for place, cell in {"upper left": 0, "upper right": 6, "centre": 24, "middle left": 21, "lower centre": 45}.items():
        assert brightest_place(np.eye(49)[cell], (7, 7)) == place
    assert [square_grid(r) for r in (1, 2, 4, 36, 48, 196)] == [None, None, (2, 2), (6, 6), None, (14, 14)]
    assert fit(Image.new("L", (1000, 10)), 100).size == (100, 1)


def test_chart_names_every_line_apart_and_escapes() -> None:
    names = [f"run {i} <b>&$x^2$" for i in range(10)]
    svg = line_chart(
        [Series(name, (1, 2, 3), (1.0, 2.0, 3.0)) for name in names], x_label="epoch", description='"<x>&"'
    )
    page = Page(svg)
    assert page.named("svg")[0]["aria-label"] == '"<x>&"'
    for name in names:
        assert name in page.text
    labels = [attributes for attributes in page.named("text") if "var(--series" in attributes["style"]]
    places = [float(attributes["y"]) for attributes in labels]
    assert len(places) == len(names)
    assert np.diff(sorted(places)).min() > 10
    assert "#0102" not in svg
    assert "#0103" not in svg
    line_chart([Series("one", (1,), (float("nan"),)), Series("two", (1,), (5.0,))], x_label="x", description="d")
    line_chart([], x_label="x", description="d")


ANSWERS = st.sampled_from(["yes", "no", "1", "2", "red", "a<b"])


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from(["is", "how many", "what"]), ANSWERS, ANSWERS | st.none()), min_size=1),
    top=st.integers(1, 4),
    types=st.integers(1, 3),
)
def test_confusions_count_as_brute_force_does(rows: list[tuple[str, str, str | None]], top: int, types: int) -> None:
    data = dataset([(kind, "other", truth) for kind, truth, _ in rows])
    found = confusions(data, Strings.of([predicted for _, _, predicted in rows]), top=top, question_types=types)
    by_type = sorted(Counter(kind for kind, _, _ in rows).items(), key=lambda item: (-item[1], item[0]))
    assert [(c.question_type, c.questions) for c in found] == by_type[:types]
    for confusion in found:
        pairs = [(truth, predicted) for kind, truth, predicted in rows if kind == confusion.question_type]
        frequent = sorted(Counter(truth for truth, _ in pairs).items(), key=lambda item: (-item[1], item[0]))
        assert confusion.answers == tuple(answer for answer, _ in frequent[:top])
        shown = [*confusion.answers, None]
        for t, truth in enumerate(shown):
            for p, predicted in enumerate(shown):
                expected = sum(
                    (a if a in confusion.answers else None) == truth
                    and (b if b in confusion.answers else None) == predicted
                    for a, b in pairs
                )
                assert confusion.count_TP[t, p] == expected
        for truth, predicted, count in confusion.mistakes():
            assert truth != predicted
            assert count == pairs.count((truth, predicted)) > 0


def test_confusions_refuse_hidden_answers_and_other_lengths() -> None:
    data = dataset([("is", "yes/no", "yes")] * 3)
    with pytest.raises(InputError, match="3 questions but predictions of shape"):
        confusions(data, Strings.of(["yes"]))
    hidden = QADataset(**{**data.__dict__, "majority": None, "answers": None})
    with pytest.raises(InputError, match="hidden"):
        confusions(hidden, Strings.of(["yes"] * 3))
    assert human_answers(hidden, 0) == ()
    untyped = QADataset(**{**data.__dict__, "question_type": None})
    assert [c.question_type for c in confusions(untyped, Strings.of(["no"] * 3))] == ["all questions"]


def test_examples_are_of_different_images_and_every_type() -> None:
    data = dataset([("is", "yes/no", "yes")] * 50 + [("how many", "number", "2")] * 6, images=20)
    rows = example_rows(data, count=12, seed=1)
    assert len(set(data.image_row_N[rows].tolist())) == len(rows) == 12
    assert Counter(data.question_type.at(row) for row in rows)["how many"] >= 4  # type: ignore[union-attr]
    assert rows.tolist() == example_rows(data, count=12, seed=1).tolist()
    assert rows.tolist() != example_rows(data, count=12, seed=2).tolist()
    assert len(example_rows(data, count=99)) == 20
    assert human_answers(data, 0) == (("yes", 10),)


def table() -> Table:
    return Table(
        "T|1",
        "accuracy in percent",
        (Column("all", "Open"), Column("all", "Choice"), Column("seeds", decimals=0, kind="floor")),
        (
            Row("a_b", (50.001, 60.0, 3)),
            Row("_c|d_\n<i>", (50.004, None, 3), (0.5, None, None)),
            Row("floor", (90.0, 10.0, None), kind="floor"),
        ),
        note="note *x*",
    )


def test_best_is_marked_among_runs_only_and_ties_share_it() -> None:
    t = table()
    assert [[t.is_best(r, c) for c in range(3)] for r in range(3)] == [
        [True, False, False],
        [True, False, False],
        [False] * 3,
    ]
    assert [t.text(1, c) for c in range(3)] == ["↓ 50.00 ± 0.50", "–", "3"]
    across = Table("t", "c", (Column("x"), Column("y")), (Row("r", (1.0, 2.0)), Row("s", (4.0, 3.0))), best="row")
    assert [[across.is_best(r, c) for c in range(2)] for r in range(2)] == [[False, True], [True, False]]
    with pytest.raises(ValueError, match="one value a column"):
        Table("t", "c", (Column("x"),), (Row("r", (1.0, 2.0)),))


def test_markdown_and_json_hold_the_same_numbers() -> None:
    lines = render_markdown(table()).splitlines()
    assert lines[0] == r"**T\|1**"
    assert lines[4:9] == [
        "| Model | Open, all | Choice, all | seeds |",
        "| --- | ---: | ---: | ---: |",
        "| a_b | **↓ 50.00** | 60.00 | 3 |",
        r"| \_c\|d\_ \<i\> | **↓ 50.00 ± 0.50** | – | 3 |",
        "| *floor* | 90.00 | 10.00 | – |",
    ]
    assert lines[-1] == r"note \*x\* ↓ below a floor of its column."
    value = table_json(table())
    assert value["columns"] == ["Open, all", "Choice, all", "seeds"]
    assert value["rows"][1]["values"] == {"Open, all": 50.004, "Choice, all": None, "seeds": 3}
    assert value["rows"][1]["standard_deviation"]["Open, all"] == 0.5
    assert [row["kind"] for row in value["rows"]] == ["run", "run", "floor"]
    assert [row.get("below_floor") for row in value["rows"]] == [["Open, all"], ["Open, all"], None]


def test_a_run_below_a_floor_is_marked_in_its_column_or_row_and_an_equal_one_is_not() -> None:
    floor, ceiling = Row("f", (33.3333, 50.0), kind="floor"), Row("c", (90.0, 90.0), kind="ceiling")
    down = Table("t", "c", (Column("x"), Column("y")), (Row("r", (33.3333, 49.999)), floor, ceiling))
    assert [down.is_below_floor(0, c) for c in range(2)] == [False, True] and down.text(0, 1) == "↓ 50.00"
    assert not any(down.is_below_floor(r, c) for r in (1, 2) for c in range(2))
    columns = (Column("r"), Column("s"), Column("f", kind="floor"), Column("c", kind="ceiling"))
    across = Table("t", "c", columns, (Row("what", (1.0, 3.0, 2.0, 9.0)), Row("is", (1.0, 3.0, None, 9.0))), best="row")
    assert [[across.is_below_floor(r, c) for c in range(4)] for r in range(2)] == [
        [True, False, False, False],
        [False] * 4,
    ]
    assert across.notes == "↓ below a floor of its row." and not replace(across, rows=across.rows[1:]).notes
    assert below_floor(2.0, {"low": 1.0, "high": 3.0, "middle": 2.5}) == "high"
    assert below_floor(3.0, {"high": 3.0}) == below_floor(0.0, {}) == ""


def test_accuracy_tables_take_their_numbers_from_the_scores() -> None:
    data = dataset(
        [("is", "yes/no", "yes"), ("what", "other", "red"), ("how many", "number", "2"), ("what", "other", "b")]
    )
    right, half = score(data, data.majority or Strings.of([])), score(data, Strings.of(["yes", "red", "3", "c"]))
    both = [ModelScores("run", half, right), ModelScores("top", right, None, "ceiling")]
    t = accuracy_table(both, data="table val")
    assert [column.full_name for column in t.columns][:4] == [
        "Open-ended, all",
        "Open-ended, yes/no",
        "Open-ended, number",
        "Open-ended, other",
    ]
    assert t.rows[0].values == (50.0, 100.0, 0.0, 50.0, 100.0, 100.0, 100.0, 100.0)
    assert t.rows[1].values[4:] == (None,) * 4
    assert t.caption == "VQA accuracy in percent, official protocol of 2021, table val, 4 questions."
    per_type = question_type_table(both, "open-ended", data="table val")
    assert {row.name: row.values for row in per_type.rows} == {
        "how many": (0.0, 100.0),
        "is": (100.0, 100.0),
        "what": (50.0, 100.0),
    }
    mixed = [ModelScores("a", right), ModelScores("b", score(data, data.majority or Strings.of([]), "2015"))]
    with pytest.raises(InputError, match="one protocol, not 2015, 2021"):
        accuracy_table(mixed, data="d")
    with pytest.raises(InputError, match="not none"):
        accuracy_table([], data="d")


def contrast(one: str, other: str) -> float:
    """The contrast of two "#rrggbb" colours as WCAG 2 defines it, 1 to 21."""

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_sufficient_contrast(tmp_path: Path, scheme: int) -> None:
    text = written(tmp_path, Report("t"))
    block = re.findall(r":root \{(.*?)\}", text, flags=re.DOTALL)[scheme]
    colour = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    written_on = [(name, ground) for name in ("ink", "muted") for ground in ("page", "card", "soft")]
    coloured = ["accent", "right", "wrong", "partly", *(f"series-{i}" for i in range(8))]
    written_on += [(name, "card") for name in coloured] + [("accent", "page")]
    for kind in ("right", "wrong", "rest"):
        written_on += [("ink" if shade <= 3 else "on-strong", f"{kind}-{shade}") for shade in range(1, 7)]
    for name, ground in written_on:
        assert contrast(colour[name], colour[ground]) >= 4.5, (name, ground)


def test_a_tracked_table_leaves_missing_images_empty(tmp_path: Path, image: Path) -> None:
    weights_HR = np.array([[0.5, 0.2, 0.2, 0.1]])
    example = Example(tmp_path / "gone.jpg", "?", (), (), 0.0, attention_HR=weights_HR, grid=(2, 2))
    table = predictions_table((example, replace(example, image=image)))
    gone, shown = ((row[0], row[-1]) for row in table.rows)
    assert gone == (None, None)
    assert None not in shown
