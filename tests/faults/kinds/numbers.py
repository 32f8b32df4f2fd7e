"""Numbers that are none, or far too large: overrides, options and sizes."""

from collections.abc import Iterator
from pathlib import Path

from faults.case import Case, thinned

TRAIN = ["train", "e.yaml", "name=new"]
FLOATS = (
    "training.optimizer.learning_rate", "training.optimizer.weight_decay", "training.optimizer.epsilon",
    "training.schedule.warmup", "training.clip_norm", "training.clip_value", "training.initial_range",
    "training.initial_embedding_range", "data.holdout", "classifier.dropout", "fusion.dropout",
)  # fmt: skip
INTEGERS = (
    "training.epochs", "training.batch_size", "training.patience", "words.longest", "words.min_count", "answers.size",
    "answers.min_count", "question_encoder.layers", "fusion.hops", "features.image_size", "data.holdout_seed", "seed",
    "training.order_seed",
)  # fmt: skip
SIZES = (
    "fusion.attention_dim", "question_encoder.embedding_dim", "question_encoder.hidden_dim",
    "question_encoder.sentence_dim", "question_encoder.layers", "fusion.hops",
)  # fmt: skip
EITHER = frozenset({0, 2})


def cases() -> Iterator[Case]:
    for key in FLOATS:
        for value in (".inf", "-.inf", ".nan", "1e400", "-1", "1e300"):
            loose = value == "1e300" or (key in ("training.clip_norm", "training.clip_value") and value == "1e300")
            yield Case(f"numbers: {key}={value}", [*TRAIN, "training.epochs=1", f"{key}={value}"],
                       allowed=frozenset({0, 1, 2}) if loose else frozenset({2}))  # fmt: skip
    for key in INTEGERS:
        for value in ("-1", str(10**30), ".inf", str(2**63), str(2**31)):
            if key == "training.epochs" and value in (str(10**30), str(2**63), str(2**31)):
                continue  # that is a patient user
            fine = key in ("training.batch_size", "training.patience", "words.longest", "answers.size", "seed",
                           "training.order_seed", "data.holdout_seed") and not value.startswith(("-", "."))  # fmt: skip
            yield Case(f"numbers: {key}={value}", [*TRAIN, "training.epochs=1", f"{key}={value}"],
                       allowed=EITHER if fine else frozenset({2}))  # fmt: skip
    yield from size_cases()
    yield from thinned(option_cases(), 2)
    yield from dead_cases()


def size_cases() -> Iterator[Case]:
    """Models that no machine holds."""
    for key in SIZES:
        for value in ("999999999999", "100000000", "64", str(2**40), str(10**25)):
            small = value == "64"
            yield Case(
                f"numbers: train {key}={value}", [*TRAIN, f"{key}={value}"], allowed=EITHER if small else frozenset({2})
            )
            if len(value) % 2:
                yield Case(f"numbers: describe {key}={value}", ["describe", "e.yaml", f"{key}={value}"], allowed=EITHER)
                continue
            yield Case(f"numbers: ablate {key}={value}", ["ablate", "a.yaml", f"{key}={value}"],
                       allowed=EITHER if small else frozenset({2}))  # fmt: skip
    for text in ("{name: product, fusion_dim: 999999999999}", "{name: concat}", "{name: mcb, fusion_dim: 10000000000}"):
        yield Case(
            f"numbers: fusion={text}",
            [*TRAIN, f"fusion={text}"],
            allowed=EITHER if "concat" in text else frozenset({2}),
        )


def option_cases() -> Iterator[Case]:
    """Options of commands."""
    values = ("-1", "0", str(10**30), str(2**63), "inf", "nan", "1e5", "x", "")
    extract = ["features", "extract", "--data", "data", "--format", "vqa_v2", "--split", "val", "--out", "x.h5",
               "--encoder", "squeezenet1_1", "--weights", "random"]  # fmt: skip
    options = {
        "generate --scenes": ["data", "generate", "new", "--scenes"],
        "generate --size": ["data", "generate", "new", "--scenes", "40", "--size"],
        "generate --seed": ["data", "generate", "new", "--scenes", "40", "--size", "32", "--seed"],
        "extract --image-size": [*extract, "--image-size"],
        "extract --batch-size": [*extract, "--image-size", "64", "--batch-size"],
        "extract --workers": [*extract, "--image-size", "64", "--workers"],
        "fisher --seed": ["features", "fisher", "cache.h5", "--out", "f.h5", "--components", "1", "--dimensions", "1",
        "--seed"],
        "fisher --sample": ["features", "fisher", "cache.h5", "--out", "f.h5", "--components", "1", "--sample"],
        "fisher --components": ["features", "fisher", "cache.h5", "--out", "f.h5", "--components"],
        "check --sample": ["features", "check", "cache.h5", "--data", "data", "--format", "vqa_v2", "--split", "val",
        "--sample"],
        "describe --words": ["describe", "e.yaml", "--words"], "describe --regions": ["describe", "e.yaml",
        "--regions"],
        "describe --answers": ["describe", "e.yaml", "--answers"], "describe --tokens": ["describe", "e.yaml",
        "--tokens"],
        "describe --channels": ["describe", "e.yaml", "--channels"], "describe --images": ["describe", "e.yaml",
        "--images"],
        "demo --seed": ["demo", "--out", "d", "--scenes", "1", "--seed"], "demo --scenes": ["demo", "--out", "d",
        "--scenes"],
        "import --boxes": ["features", "import", "p.tsv", "--from", "bottom-up-attention", "--out", "x.h5", "--boxes"],
        "bench score --questions": ["bench", "score", "--repeat", "1", "--questions"],
        "bench score --repeat": ["bench", "score", "--questions", "10", "--repeat"],
    }  # fmt: skip
    refused = ("-1", "inf", "nan", "1e5", "x", "")
    for name, typed in options.items():
        for value in values:
            if value in (str(10**30), str(2**63)) and name in (
                "bench score --repeat",
                "check --sample",
                "fisher --sample",
            ):
                continue
            yield Case(f"numbers: {name} {value!r}", [*typed, value],
                       allowed=frozenset({2}) if value in refused else EITHER | {1})  # fmt: skip


def dead_cases() -> Iterator[Case]:
    """Runs that learn nothing say so."""
    for text in ("training.schedule.warmup=1e9", "training.optimizer.learning_rate=1e-300"):
        yield Case(f"numbers: a rate of nothing, {text}", [*TRAIN, text], allowed=frozenset({0, 1, 2}), says=("rate",))
    yield Case("numbers: train a negative seed", ["train", "e.yaml", "seed=-5"])
    for seed in (-1, 10**30, 2**63):

        def write(folder: Path, seed: int = seed) -> None:
            text = f"name: g\nbase: e.yaml\ngrid: {{fusion: [product]}}\nseeds: [{seed}]\n"
            (folder / "a.yaml").write_text(text)

        yield Case(f"numbers: ablate, seeds of {seed}", ["ablate", "a.yaml"], write)
