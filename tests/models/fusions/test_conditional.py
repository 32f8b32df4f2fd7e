"""FiLM, relation network and DPPnet: the question acts on the network that reads the image."""

import numpy as np
import pytest
import torch
from helpers.models import SMALL, count_parameters, float64_case, linear, small_fusion
from numpy.typing import NDArray

from vqa.errors import InputError
from vqa.models import Image
from vqa.models.fusions import dppnet, relation
from vqa.models.hashing import SEED, dynamic_layer_hash, xxh32
from vqa.models.layers import BatchNorm
from vqa.testing.batches import IMAGE_DIM, QUESTION_DIM, random_image, random_question, shake

Array = NDArray[np.float64]


def relu(values: Array) -> Array:
    return np.maximum(values, 0)


def test_film() -> None:
    case = float64_case("film", blocks=3, hidden_dim=6, fusion_dim=5)
    w = case.weights
    for row, image_RC in enumerate(case.image_BRC):
        modulation = linear(w, "modulation", case.sentence_BD[row]).reshape(3, 2, 6)
        regions = []
        for f_C in image_RC:
            x = relu(linear(w, "project", f_C))
            for n, (gamma, beta) in enumerate(modulation):
                a = relu(linear(w, f"blocks.{n}.first", x))
                mean, variance = (w[f"blocks.{n}.norm.running_{part}"] for part in ("mean", "var"))
                c = (linear(w, f"blocks.{n}.second", a) - mean) / np.sqrt(variance + 1e-5)
                x = a + relu((1 + gamma) * c + beta)
            regions.append(relu(linear(w, "output", x)))
        np.testing.assert_allclose(case.vector_BD[row], np.max(regions, axis=0), atol=1e-12)


def conv3x3(weight: Array, bias: Array | None, map_CSS: Array) -> Array:
    """A convolution with zeros around the map, by its definition."""
    side = map_CSS.shape[1]
    padded = np.pad(map_CSS, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(weight), side, side))
    for row in range(side):
        for column in range(side):
            window = padded[:, row : row + 3, column : column + 3]
            out[:, row, column] = (weight * window).sum(axis=(1, 2, 3))
    return out if bias is None else out + bias[:, None, None]


def test_film_as_released() -> None:
    """Stem, blocks and projection on a grid of 3 x 3, columns and rows beside the channels, statistics as they are."""
    case = float64_case("film", regions=9, blocks=2, hidden_dim=6, fusion_dim=5, grid=True)
    w = case.weights
    places = np.stack(np.meshgrid([-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]))  # x along columns, then y along rows

    def batch_norm(name: str, x: Array) -> Array:
        mean, variance = (w[f"{name}.running_{part}"] for part in ("mean", "var"))
        x = (x - mean[:, None, None]) / np.sqrt(variance[:, None, None] + 1e-5)
        return x * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None] if f"{name}.weight" in w else x

    def pointwise(name: str, x: Array) -> Array:
        return np.asarray(np.einsum("dc,cyx->dyx", w[f"{name}.weight"], x) + w[f"{name}.bias"][:, None, None])

    for row, image_RC in enumerate(case.image_BRC):
        modulation = linear(w, "modulation", case.sentence_BD[row]).reshape(2, 2, 6)
        x = np.concatenate([image_RC.T.reshape(-1, 3, 3), places])
        x = conv3x3(w["project.convolution.weight"], w["project.convolution.bias"], x)
        x = relu(batch_norm("project_norm", x))
        for n, (gamma, beta) in enumerate(modulation):
            a = relu(pointwise(f"blocks.{n}.first", np.concatenate([x, places])))
            c = batch_norm(f"blocks.{n}.norm", conv3x3(w[f"blocks.{n}.second.convolution.weight"], None, a))
            x = a + relu((1 + gamma)[:, None, None] * c + beta[:, None, None])
        x = relu(batch_norm("output_norm", pointwise("output", np.concatenate([x, places]))))
        np.testing.assert_allclose(case.vector_BD[row], x.max(axis=(1, 2)), atol=1e-10)


@pytest.mark.parametrize("training", [False, True])
def test_film_on_a_grid_is_the_same_with_images_shared_by_questions(training: bool) -> None:
    """Batch statistics count an image as often as it is asked about, whether it is there once or as often."""
    row_B, image_IRC = torch.tensor([0, 1, 1, 0, 1]), random_image(2, regions=9).double()
    question = random_question([3, 4, 2, 5, 1])
    question = question._replace(sentence_BD=question.sentence_BD.double())
    found = []
    for image in (Image(image_IRC, row_B=row_B), Image(image_IRC[row_B])):
        fusion = small_fusion("film", regions=9, grid=True).double().train(training)
        found.append((fusion(image, question).vector_BD, fusion.get_buffer("project_norm.running_mean")))
    for shared, apart in zip(*found, strict=True):
        torch.testing.assert_close(shared, apart)


def test_film_on_a_grid_wants_all_of_it() -> None:
    with pytest.raises(InputError, match="`grid` needs a square grid of regions, not 8 regions"):
        small_fusion("film", regions=8, grid=True)
    fusion, mask_IR = small_fusion("film", regions=9, grid=True), torch.ones(2, 9, dtype=torch.bool)
    mask_IR[1, 8] = False
    with pytest.raises(InputError, match="some of these are padding"):
        fusion(Image(random_image(2, regions=9), mask_IR=mask_IR), random_question([3, 4]))


@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("coordinates", [True, False])
def test_relation(reduce: str, coordinates: bool) -> None:
    case = float64_case("relation", regions=4, layers=3, reduce=reduce, coordinates=coordinates)
    w = case.weights
    cells = [(-1, -1), (-1, 1), (1, -1), (1, 1)] if coordinates else [()] * 4
    first = np.concatenate([w["left.weight"], w["right.weight"], w["query.weight"]], axis=1)  # one layer on [o, o', q]
    joint = {"g.weight": first, "g.bias": w["query.bias"]}
    for row, image_RC in enumerate(case.image_BRC):
        objects = [np.array([*f_C, *cell]) for f_C, cell in zip(image_RC, cells, strict=True)]
        total = np.zeros(SMALL)
        for one in objects:
            for other in objects:
                hidden = relu(linear(joint, "g", np.concatenate([one, other, case.sentence_BD[row]])))
                for layer in (1, 3):
                    hidden = relu(linear(w, f"pair.{layer}", hidden))
                total += hidden
        if reduce == "mean":
            total /= 16
        expected = relu(linear(w, "output.3", relu(linear(w, "output.0", total))))
        np.testing.assert_allclose(case.vector_BD[row], expected, rtol=1e-10)


def test_relation_with_coordinates_sees_where_things_are() -> None:
    image_BRC, question = random_image(2, 9), random_question([3, 2])
    blind, seeing = (small_fusion("relation", regions=9, coordinates=value) for value in (False, True))
    image, turned = Image(image_BRC), Image(image_BRC.flip(1))
    torch.testing.assert_close(blind(image, question).vector_BD, blind(turned, question).vector_BD)
    shifted = seeing(turned, question).vector_BD - seeing(image, question).vector_BD
    assert shifted.abs().max() > 1e-4
    with pytest.raises(InputError, match="square grid of regions, not 10 regions"):
        small_fusion("relation", regions=10, coordinates=True)


@pytest.mark.parametrize("at_once", [1, 2**24], ids=["in turns", "at once"])
def test_dppnet(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dppnet, "WEIGHTS_AT_ONCE", at_once)
    case = float64_case("dppnet", candidates=11, fusion_dim=6)
    w = case.weights
    bucket_MN, sign_MN = dynamic_layer_hash(6, 6, 11)
    for row, image_RC in enumerate(case.image_BRC):
        image_C = image_RC.mean(axis=0)
        f = relu(linear(w, "image", image_C / np.sqrt((image_C**2).sum())))
        p = linear(w, "candidates", case.sentence_BD[row])
        dynamic = np.array([sum(p[bucket_MN[m, n]] * sign_MN[m, n] * f[n] for n in range(6)) for m in range(6)])
        normed = (dynamic - w["norm.running_mean"]) / np.sqrt(w["norm.running_var"] + 1e-5)
        np.testing.assert_allclose(case.vector_BD[row], relu(w["norm.weight"] * normed + w["norm.bias"]), atol=1e-12)


@pytest.mark.parametrize(("name", "limit"), [("dppnet", "WEIGHTS_AT_ONCE"), ("relation", "CPU_PAIRS_AT_ONCE")])
def test_turns_change_neither_result_nor_gradient(name: str, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for at_once in (2**24, 1):
        monkeypatch.setattr({"dppnet": dppnet, "relation": relation}[name], limit, at_once)
        fusion, image_BRC = small_fusion(name).train(), random_image(5)
        shake(fusion)
        torch.manual_seed(0)
        vector_BD = fusion(Image(image_BRC), random_question([1, 2, 3, 4, 5])).vector_BD
        vector_BD.square().sum().backward()
        results.append([vector_BD.detach(), *(p.grad for p in fusion.parameters())])
    for once, turns in zip(*results, strict=True):
        torch.testing.assert_close(once, turns, atol=1e-5, rtol=1e-4)


def test_dppnet_starts_with_the_same_weights_for_every_question() -> None:
    fusion, image_BRC = small_fusion("dppnet"), random_image(3)
    one, other = (fusion(Image(image_BRC), random_question([3, 2, 1], seed=seed)).vector_BD for seed in (1, 2))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("text", "seed", "value"),
    [  # from the xxHash reference implementation
        ("", 0, 0x02CC5D05),
        ("a", 1691, 0xF5E75ACC),
        ("abc", 0, 0x32D153FF),
        ("123_91011xi_W", 1691, 0x767DED28),
        ("0123456789abcdef", 1, 0xF31FE1CF),
        ("199920002001_199920002001idxW", 1691, 0x78990281),
        ("I want an unsigned 32-bit seed!", 1, 0xD8D4B4BA),
        ("Nobody inspects the spammish repetition", 0, 0xE2293B2F),
    ],
)
def test_xxh32(text: str, seed: int, value: int) -> None:
    keys_NL = np.frombuffer((text * 2).encode(), dtype=np.uint8).reshape(2, len(text))
    assert xxh32(keys_NL, seed).tolist() == [value, value]


def test_every_weight_of_the_dynamic_layer_has_its_released_key() -> None:
    """One key at a time, from 1, outputs before inputs, over the step from one to two to three digits."""
    bucket_MN, sign_MN = dynamic_layer_hash(103, 12, 40_000)
    for m, n in [(0, 0), (8, 9), (9, 8), (97, 3), (102, 11), (7, 0)]:
        left = "".join(str(m + k) for k in (1, 2, 3))
        right = "".join(str(n + k) for k in (1, 2, 3))
        for suffix, found, buckets in (("idxW", bucket_MN[m, n], 40_000), ("xi_W", (sign_MN[m, n] + 1) // 2, 2)):
            key = np.frombuffer(f"{left}_{right}{suffix}".encode(), dtype=np.uint8)[None]
            assert found == int(xxh32(key, SEED)[0]) % buckets
    assert dynamic_layer_hash(2, 1, 40_000)[0].ravel().tolist() == bucket_MN[:2, 0].tolist()


def test_the_hash_spreads_evenly() -> None:
    bucket_MN, sign_MN = dynamic_layer_hash(200, 200, 100)
    uses = np.bincount(bucket_MN.ravel(), minlength=100)
    assert ((uses - 400) ** 2 / 400).sum() < 150  # chi-squared with 99 degrees of freedom
    assert abs(sign_MN.mean()) < 0.02 and set(sign_MN.ravel()) == {-1, 1}


def test_batch_norm_of_a_single_row_uses_the_running_statistics() -> None:
    norm, values_ND = BatchNorm(3), torch.randn(1, 3)
    expected = values_ND / (1 + norm.eps) ** 0.5
    torch.testing.assert_close(norm.train()(values_ND), expected)
    rows_ND = torch.randn(8, 3)
    torch.testing.assert_close(norm(rows_ND), torch.nn.BatchNorm1d(3)(rows_ND))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("film", {"blocks": 2, "grid": True, "regions": 9}, 9 * (IMAGE_DIM + 2) * SMALL + SMALL + 2 * SMALL
            + 2 * ((SMALL + 2 + 1) * SMALL + 9 * SMALL**2) + (SMALL + 2 + 1) * SMALL + 2 * SMALL
            + (QUESTION_DIM + 1) * 2 * 2 * SMALL),
        ("film", {"blocks": 3}, (IMAGE_DIM + 1) * SMALL + 3 * (2 * SMALL**2 + SMALL) + (SMALL + 1) * SMALL
         + (QUESTION_DIM + 1) * 3 * 2 * SMALL),
        ("relation", {"layers": 4}, (2 * IMAGE_DIM + QUESTION_DIM + 1) * SMALL + (3 + 2) * (SMALL + 1) * SMALL),
        ("dppnet", {"candidates": 50}, (IMAGE_DIM + 1) * SMALL + (QUESTION_DIM + 1) * 50 + 2 * SMALL),
    ],
)  # fmt: skip
def test_parameter_counts(name: str, options: dict[str, int], expected: int) -> None:
    assert count_parameters(small_fusion(name, **options)) == expected
