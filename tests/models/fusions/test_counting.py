"""The counting component and what is built around it, in float64 with explicit loops."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.models import SMALL, Weights, count_parameters, float64_case, fusion_case, linear, small_fusion, softmax
from numpy.typing import NDArray

from vqa.errors import InputError
from vqa.models import Image
from vqa.models.fusions.counter import Counter
from vqa.testing import FUSION_PROMISES, FusionCase
from vqa.testing.batches import IMAGE_DIM, QUESTION_DIM, WORD_DIM, random_boxes, random_image, random_question
from vqa.training.inputs.prepare import require_boxes

Array = NDArray[np.float64]


def rising(weight_P: Array, x: float) -> float:
    """The piecewise linear function of the paper: whole pieces below x, then a part of the next."""
    share = np.abs(weight_P) / np.abs(weight_P).sum()
    whole = min(int(len(share) * x), len(share) - 1)
    return float(share[:whole].sum() + (len(share) * x - whole) * share[whole])


def overlap(one: Array, other: Array) -> float:
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height + 1e-12)


def count_features(weight_FP: Array, score_R: Array, boxes_R4: Array, objects: int) -> Array:
    """The component, as the paper writes it, for one image."""
    best = sorted(range(len(score_R)), key=lambda r: -score_R[r])[:objects]
    a = [1 / (1 + np.exp(-score_R[r])) for r in best] + [0.0] * (objects - len(best))
    boxes = [boxes_R4[r] for r in best] + [np.zeros(4)] * (objects - len(best))
    places, f = range(objects), [lambda x, w=weight: rising(w, x) for weight in weight_FP]
    apart = [[1 - overlap(boxes[i], boxes[j]) for j in places] for i in places]
    graph = [[f[0](a[i] * a[j]) * f[1](apart[i][j]) for j in places] for i in places]
    other = [[f[3](a[i] * a[j]) * f[4](apart[i][j]) for j in places] for i in places]
    copies = []
    for i in places:
        alike = []
        for j in places:
            rows = [f[2](1 - abs(other[i][k] - other[j][k])) for k in places]
            alike.append(f[2](1 - abs(a[i] - a[j])) * np.prod(rows))
        copies.append(sum(alike))
    edges = sum(graph[i][j] / (copies[i] * copies[j]) for i in places for j in places)
    count = min(np.sqrt(edges + sum(f[0](a[i] ** 2) / copies[i] for i in places)), objects)
    sure = f[7](
        np.mean([abs(f[5](x) - 0.5) for x in a])
        + np.mean([abs(f[6](apart[i][j]) - 0.5) for i in places for j in places])
    )
    return np.array([max(0.0, 1 - abs(count - n)) * sure for n in range(objects + 1)])


def joined(x: Array, y: Array) -> Array:
    return np.maximum(x + y, 0) - (x - y) ** 2


def normed(w: Weights, key: str, values: Array) -> Array:
    scale = w[f"{key}.weight"] / np.sqrt(w[f"{key}.running_var"] + 1e-5)
    return (values - w[f"{key}.running_mean"]) * scale + w[f"{key}.bias"]


@pytest.mark.parametrize(("objects", "glimpses"), [(3, 2), (7, 1)])
def test_counter(objects: int, glimpses: int) -> None:
    """With 7 objects there are more than the 5 regions."""
    case = float64_case("counter", objects=objects, glimpses=glimpses)
    w = case.weights
    assert case.attention_BHR is not None
    for row, image_RC in enumerate(case.image_BRC):
        question = case.sentence_BD[row]
        regions = [f_C / np.sqrt((f_C**2).sum()) for f_C in image_RC]
        asked = linear(w, "query", question)
        score_RG = np.array([linear(w, "logit", joined(linear(w, "region", v), asked)) for v in regions])
        found: list[float] = []
        for g in range(glimpses):
            p_R = softmax(score_RG[:, g])
            np.testing.assert_allclose(case.attention_BHR[row, g], p_R, atol=1e-12)
            found += list(sum(p * v for p, v in zip(p_R, regions, strict=True)))
        features = count_features(w["counter.f.weight_FP"], score_RG[:, 0], case.boxes_BR4[row], objects)
        count = normed(w, "norm_count", np.maximum(linear(w, "count", features), 0))
        joint = joined(linear(w, "image", np.array(found)), linear(w, "question", question))
        np.testing.assert_allclose(case.vector_BD[row], normed(w, "norm", joint + count), atol=1e-10)


@pytest.mark.parametrize("glimpses", [1, 2])
def test_ban_with_a_count_of_each_glimpse(glimpses: int) -> None:
    case = float64_case("ban", glimpses=glimpses, counter=4)
    w = case.weights
    for row, image_RC in enumerate(case.image_BRC):
        words = list(case.words[row])
        asked = [np.maximum(linear(w, "word.1", x), 0) for x in words]
        seen = [np.maximum(linear(w, "region.1", y), 0) for y in image_RC]
        for g in range(glimpses):
            logit_TR = np.array([[sum(w["pattern_HK"][g] * x * y) for y in seen] for x in asked])
            a_TR = softmax(logit_TR.ravel()).reshape(logit_TR.shape)
            left = [np.maximum(linear(w, f"glimpse_word.{g}.1", x), 0) for x in words]
            right = [np.maximum(linear(w, f"glimpse_region.{g}.1", y), 0) for y in image_RC]
            f = sum(a_TR[t, r] * x * y for t, x in enumerate(left) for r, y in enumerate(right))
            score_R = np.array([max(column) for column in logit_TR.T]) + w["counts.shift_H"][g]
            features = count_features(w["counts.counter.f.weight_FP"], score_R, case.boxes_BR4[row], 4)
            count = np.maximum(linear(w, f"counts.output.{g}", features), 0)
            words = [x + linear(w, f"output.{g}", np.asarray(f)) + count for x in words]
        np.testing.assert_allclose(case.vector_BD[row], sum(words), atol=1e-9)


@pytest.mark.parametrize("promise", FUSION_PROMISES, ids=lambda promise: promise.__name__)
def test_ban_with_a_counter_keeps_every_promise(promise: Callable[[FusionCase], None]) -> None:
    promise(fusion_case("ban", counter=3))


def boxes_in_a_row(counts: list[int]) -> torch.Tensor:
    """Boxes of objects that stand apart, each as often as given: `[1, R, 4]`."""
    corners = [(n / 10, 0.0, n / 10 + 0.05, 0.5) for n, often in enumerate(counts) for _ in range(often)]
    return torch.tensor([corners], dtype=torch.float64)


@pytest.mark.parametrize("counts", [[1], [1, 1, 1], [3, 1, 2], [1, 4]])
def test_it_counts_each_object_once_however_many_boxes_it_has(counts: list[int]) -> None:
    """Clear attention and boxes that overlap wholly or not at all: the case that the paper solves exactly."""
    boxes_BR4 = boxes_in_a_row([*counts, 1, 1])
    logit_BR = torch.full(boxes_BR4.shape[:2], 50.0, dtype=torch.float64)
    logit_BR[:, -2:] = -50.0  # two that are not looked at
    expected = np.eye(9)[len(counts)]
    found_N = Counter(8).double()(logit_BR, boxes_BR4, None)[0].detach().numpy()
    np.testing.assert_allclose(found_N, expected * found_N.sum(), atol=1e-6)
    assert found_N.sum() > 0.5


def test_padded_regions_count_as_none() -> None:
    counter, boxes_BR4, logit_BR = Counter(4), random_boxes(3, 6), torch.randn(3, 6)
    mask_BR = torch.tensor([[True] * 6, [True] * 4 + [False] * 2, [True] + [False] * 5])
    boxes_BR4 = boxes_BR4.masked_fill(~mask_BR[..., None], 0)
    together_BN = counter(logit_BR, boxes_BR4, mask_BR)
    for row, real in enumerate((6, 4, 1)):
        alone_BN = counter(logit_BR[row : row + 1, :real], boxes_BR4[row : row + 1, :real], None)
        torch.testing.assert_close(together_BN[row], alone_BN[0])


def test_without_boxes_it_is_refused_in_a_sentence() -> None:
    fusion = small_fusion("counter")
    with pytest.raises(InputError, match=r"where the regions of an image lie.*detector:NAME.*vqa features import"):
        fusion(Image(random_image()), random_question())
    with pytest.raises(InputError, match=r"^features/x\.h5: this fusion asks where the regions"):
        require_boxes(fusion, False, "features/x.h5")
    require_boxes(fusion, True, "features/x.h5")
    for free in (small_fusion("product"), small_fusion("ban")):
        require_boxes(free, False, "features/x.h5")
    with pytest.raises(InputError):
        require_boxes(small_fusion("ban", counter=3), False, "features/x.h5")


I, Q, W, S = IMAGE_DIM, QUESTION_DIM, WORD_DIM, SMALL  # noqa: E741


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        (
            "counter",
            {"objects": 4, "glimpses": 3},
            I * S + (Q + 1) * S + 3 * (S + 1) + (3 * I + 1) * S + (Q + 1) * S + 8 * 16 + 6 * S + 2 * 2 * S,
        ),
        (
            "ban",
            {"glimpses": 2, "counter": 4},
            3 * ((W + 1) * S + (I + 1) * S) + 2 * S + 2 * (S + 1) * W + 8 * 16 + 2 + 2 * 6 * W,
        ),
    ],
)
def test_parameter_counts(name: str, options: dict[str, Any], expected: int) -> None:
    assert count_parameters(small_fusion(name, **options)) == expected
