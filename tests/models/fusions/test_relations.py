"""The fusions that relate regions by where they lie, against their papers' equations in float64 with explicit loops."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.models import SMALL, Weights, count_parameters, float64_case, fusion_case, linear, small_fusion, softmax
from numpy.typing import NDArray

from vqa.errors import InputError
from vqa.models import Image
from vqa.models.boxes import overlaps, relative_geometry, spatial_classes
from vqa.testing import FUSION_PROMISES, FusionCase
from vqa.testing.batches import IMAGE_DIM, QUESTION_DIM, first_rows, random_boxes, random_image, random_question

Array = NDArray[np.float64]


def relu(values: Array) -> Array:
    return np.maximum(values, 0)


def with_normed_weights(case_weights: Weights) -> Weights:
    """The matrices that weight normalisation gives, under their own names."""
    w = dict(case_weights)
    for key in case_weights:
        name, found, _ = key.partition(".parametrizations.weight.original1")
        if found:
            direction = w[key]
            length = w[key.replace("original1", "original0")]
            w[f"{name}.weight"] = length * direction / np.sqrt((direction**2).sum())
    return w


def geometry(one: Array, other: Array, dim: int) -> Array:
    """The paper's f_b: four numbers, each as sines and cosines of dim / 8 wave lengths."""
    sides = [np.maximum(box[2:] - box[:2], 1e-3) for box in (one, other)]
    away = np.abs((one[:2] + one[2:]) / 2 - (other[:2] + other[2:]) / 2) / sides[0]
    numbers = [*np.log(np.maximum(away, 1e-3)), *np.log(sides[0] / sides[1])]
    embedded: list[float] = []
    for number in numbers:
        waves = [100 * number / 1000 ** (8 * k / dim) for k in range(dim // 8)]
        embedded += [*np.sin(waves), *np.cos(waves)]
    return np.array(embedded)


def side_by_side(one: Array, other: Array) -> int:
    """The class that `other` is for `one`, with angles in degrees."""
    if (one[:2] < other[:2]).all() and (one[2:] > other[2:]).all():
        return 1
    if (other[:2] < one[:2]).all() and (other[2:] > one[2:]).all():
        return 2
    shared = np.prod(np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0))
    whole = np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared
    if shared / whole >= 0.5:
        return 3
    right, down = (one[:2] + one[2:] - other[:2] - other[2:]) / 2
    if np.hypot(right, down) >= 0.5 * np.sqrt(2):
        return 0
    return 4 + int((np.degrees(np.arctan2(down, right)) % 360) // 45)


def attend_neighbours(w: Weights, at: str, x: list[Array], logits: dict[tuple[int, int, int], float]) -> list[Array]:
    """Graph attention; `logits` has what geometry or class adds, for the heads and pairs that are neighbours."""
    heads, found = 4, []
    width = len(x[0]) // heads
    asked, kept, given = ([linear(w, f"{at}.{side}", v) for v in x] for side in ("query", "key", "value"))
    for i in range(len(x)):
        row = w[f"{at}.bias_D"].copy()
        for h in range(heads):
            part = slice(h * width, (h + 1) * width)
            near = [j for j in range(len(x)) if (h, i, j) in logits]
            if not near:
                continue
            scores = [asked[i][part] @ kept[j][part] / np.sqrt(width) + logits[h, i, j] for j in near]
            for p, j in zip(softmax(np.array(scores)), near, strict=True):
                row[part] += p * given[j][part]
        found.append(row)
    return found


@pytest.mark.parametrize("relation", ["implicit", "spatial"])
def test_graph(relation: str) -> None:
    case = float64_case("graph", relation=relation, lengths=(3, 1, 6, 2), regions=7)
    w = with_normed_weights(case.weights)
    assert case.attention_BHR is not None
    seen: set[int] = set()
    for row, image_RC in enumerate(case.image_BRC):
        question, boxes = case.sentence_BD[row], case.boxes_BR4[row]
        own = [relu(linear(w, "region.0", v)) for v in image_RC]
        x = [linear(w, "joint", np.concatenate([v, question])) for v in own]
        pairs = [(i, j) for i in range(len(x)) for j in range(len(x))]
        directions: list[dict[tuple[int, int, int], float]] = []
        if relation == "implicit":
            logits: dict[tuple[int, int, int], float] = {}
            for i, j in pairs:
                opened = np.maximum(linear(w, "relation.output", geometry(boxes[i], boxes[j], SMALL)), 1e-6)
                logits |= {(h, i, j): np.log(opened[h]) for h in range(4)}
            directions.append(logits)
        else:
            classes = {(i, j): side_by_side(boxes[i], boxes[j]) for i, j in pairs if i != j}
            added = {pair: w["relation.class_L"][c - 1] for pair, c in classes.items() if c}
            directions.append({(h, i, j): value for (i, j), value in added.items() for h in range(4)})
            directions.append({(h, j, i): value for (i, j), value in added.items() for h in range(4)})
            seen |= set(classes.values())
        change = [v.copy() for v in x]
        for number, logits in enumerate(directions):
            found = attend_neighbours(w, f"neighbours.{number}", x, logits)
            change = [one + other for one, other in zip(change, found, strict=True)]
        related = [v + relu(u) for v, u in zip(own, change, strict=True)]
        asked = relu(linear(w, "answer.score.query.0", question))
        p_R = softmax(
            np.array(
                [
                    linear(w, "answer.score.logit.1", relu(linear(w, "answer.score.region.0", u)) * asked)[0]
                    for u in related
                ]
            )
        )
        np.testing.assert_allclose(case.attention_BHR[row, 0], p_R, atol=1e-12)
        vector = relu(linear(w, "answer.image.0", sum(p * u for p, u in zip(p_R, related, strict=True))))
        expected = vector * relu(linear(w, "answer.question.0", question))
        np.testing.assert_allclose(case.vector_BD[row], expected, atol=1e-11)
    assert relation == "implicit" or len(seen) >= 10


def block_fused(w: Weights, sides: tuple[str, str], values: tuple[Array, Array]) -> Array:
    """The paper's block fusion before its output layer: a low-rank form for each chunk, rooted and of length 1."""
    factors = []
    for key, value in zip(sides, values, strict=True):
        weight_GSK = w[f"{key}.weight_GSK"]
        chunks = linear(w, f"{key}.project.0", value).reshape(len(weight_GSK), -1)
        each = [chunk @ m_SK + b_K for chunk, m_SK, b_K in zip(chunks, weight_GSK, w[f"{key}.bias_GK"], strict=True)]
        factors.append(np.array(each).reshape(len(chunks), -1, chunks.shape[1]))  # chunk, rank, width
    return np.concatenate([rooted(chunk) for chunk in (factors[0] * factors[1]).sum(axis=1)])


def rooted(values: Array) -> Array:
    result = values / np.sqrt(np.abs(values) + 1e-8)
    return result / np.sqrt((result**2).sum())


@pytest.mark.parametrize("cells", [1, 3])
def test_murel(cells: int) -> None:
    case = float64_case("murel", cells=cells)
    w = case.weights
    assert case.attention_BHR is not None
    last = dict(w)
    for side in ("question", "image"):  # the last fusion is that of `block`
        last |= {
            f"{side}.project.0.weight": w[f"answer.{side}.weight"],
            f"{side}.project.0.bias": w[f"answer.{side}.bias"],
            f"{side}.weight_GSK": w[f"answer.{side}_factors.weight_GSK"],
            f"{side}.bias_GK": w[f"answer.{side}_factors.bias_G1K"][:, 0],
        }
    for row, image_RC in enumerate(case.image_BRC):
        question, boxes = case.sentence_BD[row], case.boxes_BR4[row]
        state = list(image_RC)
        for _ in range(cells):
            m = [linear(w, "fused", block_fused(w, ("query", "state"), (question, s))) for s in state]
            changed = []
            for i, s in enumerate(state):
                told = [
                    linear(
                        w,
                        "pair",
                        np.concatenate(
                            [
                                block_fused(w, ("box_left", "box_right"), (boxes[i], boxes[j])),
                                block_fused(w, ("left", "right"), (m[i], m[j])),
                            ]
                        ),
                    )
                    for j in range(len(state))
                ]
                changed.append(s + m[i] + np.max(told, axis=0))
            state = changed
        expected = block_fused(last, ("question", "image"), (question, np.max(state, axis=0)))
        np.testing.assert_allclose(case.vector_BD[row], expected, atol=1e-10)
        winners = np.argmax(state, axis=0).tolist()
        shares = [winners.count(i) / len(winners) for i in range(len(state))]
        np.testing.assert_allclose(case.attention_BHR[row, 0], shares, atol=1e-6)


def test_murel_in_turns_is_the_same() -> None:
    """More questions than are computed at once, on 40 regions, sharing their images or not."""
    fusion, question = small_fusion("murel", regions=40), random_question()
    image_IRC, boxes_IR4, row_B = random_image(2, 40), random_boxes(2, 40), torch.tensor([0, 1, 1, 0])
    whole = fusion(Image(image_IRC, row_B, None, boxes_IR4), question).vector_BD
    for row, seen in enumerate(row_B.tolist()):
        alone = Image(image_IRC[seen : seen + 1], boxes_IR4=boxes_IR4[seen : seen + 1])
        found = fusion(alone, first_rows(question, slice(row, row + 1))).vector_BD
        torch.testing.assert_close(found[0], whole[row], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("key", ["cell_dim", "pair_dim", "fusion_dim"])
def test_murel_wants_whole_chunks(key: str) -> None:
    with pytest.raises(InputError, match=rf"'murel': {key} \(21\) must be a multiple of its \d chunks"):
        small_fusion("murel", **{key: 21})


def box(*corners: float) -> torch.Tensor:
    return torch.tensor(corners, dtype=torch.float64)


HERE = box(0.4, 0.4, 0.6, 0.6)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (box(0.45, 0.45, 0.55, 0.55), 1),  # inside
        (box(0.3, 0.3, 0.7, 0.7), 2),  # covers
        (box(0.42, 0.42, 0.62, 0.62), 3),  # overlaps by 0.68
        (HERE, 3),
        (box(0.1, 0.3, 0.3, 0.5), 4),  # from it, the first is on the right and a little lower
        (box(0.3, 0.1, 0.5, 0.3), 5),  # lower and a little to the right
        (box(0.5, 0.1, 0.7, 0.3), 6),
        (box(0.7, 0.3, 0.9, 0.5), 7),
        (box(0.7, 0.5, 0.9, 0.7), 8),
        (box(0.5, 0.7, 0.7, 0.9), 9),
        (box(0.3, 0.7, 0.5, 0.9), 10),
        (box(0.1, 0.5, 0.3, 0.7), 11),
    ],
)
def test_spatial_classes(other: torch.Tensor, expected: int) -> None:
    opposite = {1: 2, 2: 1, 3: 3, **{c: 4 + (c - 4 + 4) % 8 for c in range(4, 12)}}
    class_RR = spatial_classes(torch.stack([HERE, other])[None])[0]
    assert class_RR.tolist() == [[0, expected], [opposite[expected], 0]]


def test_what_is_far_away_has_no_class() -> None:
    assert not spatial_classes(torch.stack([box(0, 0, 0.1, 0.1), box(0.9, 0.9, 1, 1)])[None]).any()


def test_overlaps_and_geometry_of_degenerate_boxes_are_finite() -> None:
    boxes_IR4 = torch.cat([random_boxes(1, 4), torch.zeros(1, 2, 4)], dim=1)
    assert relative_geometry(boxes_IR4, torch.full((*boxes_IR4.shape[:2], 2), 1e-3)).isfinite().all()
    found_RR = overlaps(boxes_IR4)[0]
    torch.testing.assert_close(found_RR.diagonal(), torch.tensor([1.0, 1, 1, 1, 0, 0]))
    assert ((found_RR >= 0) & (found_RR <= 1 + 1e-6)).all()


def test_a_region_without_neighbours_finds_nothing() -> None:
    """Four regions in the corners: with the spatial relation none sees another, so what one holds moves no other."""
    fusion, question = small_fusion("graph", relation="spatial", regions=4), random_question()
    corners = [(0.0, 0.0), (0.0, 0.9), (0.9, 0.0), (0.9, 0.9)]
    boxes_IR4 = torch.tensor([[(x, y, x + 0.1, y + 0.1) for x, y in corners]]).expand(4, -1, -1)
    looked: list[torch.Tensor] = []
    for changed in (0.0, 3.0):
        image_BRC = random_image(4, 4)
        image_BRC[:, 0] += changed
        attention_BHR = fusion(Image(image_BRC, boxes_IR4=boxes_IR4), question).attention_BHR
        assert attention_BHR is not None
        looked.append(attention_BHR[..., 1:] / attention_BHR[..., 1:].sum(dim=-1, keepdim=True))
    torch.testing.assert_close(*looked)


def test_graph_wants_whole_heads_and_whole_waves() -> None:
    with pytest.raises(InputError, match=r"relation_dim \(10\) must be a multiple of heads \(4\)"):
        small_fusion("graph", relation_dim=10)
    with pytest.raises(InputError, match=r"geometry_dim \(12\) must be a multiple of 8"):
        small_fusion("graph", geometry_dim=12)


@pytest.mark.parametrize("promise", FUSION_PROMISES, ids=lambda promise: promise.__name__)
def test_the_spatial_relation_keeps_every_promise(promise: Callable[[FusionCase], None]) -> None:
    promise(fusion_case("graph", relation="spatial"))


I, Q, S = IMAGE_DIM, QUESTION_DIM, SMALL  # noqa: E741
NEIGHBOURS = 3 * S * S + 3 + 2 * S  # with weight normalisation's lengths
GRAPH = (I + 1) * S + 1 + (S + Q + 1) * S + 1
ANSWER = 2 * ((S + 1) * S + 1 + (Q + 1) * S + 1) + S + 1


def block_side(inside: int, width: int, chunks: int, rank: int) -> int:
    """Of one side of a block fusion: its projection, and the factors of every chunk."""
    return (inside + 1) * width + chunks * (width // chunks + 1) * rank * (width // chunks)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("graph", {}, GRAPH + NEIGHBOURS + (S + 1) * 4 + 1 + ANSWER),
        ("graph", {"relation": "spatial"}, GRAPH + 2 * NEIGHBOURS + 11 + ANSWER),
        (
            "murel",
            {},
            sum(block_side(inside, S, 4, 3) for inside in (I, Q))
            + 2 * sum(block_side(inside, 10, 5, 5) for inside in (4, I))
            + (S + 1) * I
            + (2 * 10 + 1) * I
            + sum(block_side(inside, S, 4, 10) for inside in (I, Q)),
        ),
    ],
)
def test_parameter_counts(name: str, options: dict[str, Any], expected: int) -> None:
    assert count_parameters(small_fusion(name, **options)) == expected
