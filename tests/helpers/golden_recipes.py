"""Five small recipes that between them use most of what training computes.

Each has dropout, an optimiser, a schedule and a loss of its own, so that a changed formula in any of them moves a
golden number. They run in the stored old folder, whose data, features and weights are the same bytes for ever.
"""

from typing import Any

BATCH = 108  # two steps an epoch
COMMON: dict[str, Any] = {"epochs": 10, "batch_size": BATCH, "precision": "float32", "device": "cpu"}
DATA: dict[str, Any] = {"format": "vqa_v2", "root": "data"}
FEATURES: dict[str, Any] = {"cache": "cache.h5", "standardise": True}

PRODUCT: dict[str, Any] = {
    "name": "product",
    "data": DATA,
    "features": FEATURES,
    "question_encoder": {
        "name": "lstm", "embedding_dim": 12, "hidden_dim": 12, "layers": 2, "sentence_dim": 24, "dropout": 0.2,
    },
    "fusion": {"name": "product", "fusion_dim": 24, "dropout": 0.3},
    "classifier": {"dropout": 0.3},
    "loss": {"name": "cross_entropy"},
    "training": COMMON | {
        "optimizer": {"name": "rmsprop", "learning_rate": 0.003, "alpha": 0.95, "momentum": 0.5},
        "schedule": {"name": "exponential", "factor": 0.97},
        "clip_value": 0.05,
        "initial_range": 0.2,
    },
}  # fmt: skip

STACKED_ATTENTION: dict[str, Any] = {
    "name": "stacked_attention",
    "data": DATA,
    "features": FEATURES,
    "question_encoder": {"name": "lstm_last", "embedding_dim": 12, "hidden_dim": 20, "dropout": 0.1},
    "fusion": {"name": "stacked_attention", "hops": 2, "attention_dim": 12, "dropout": 0.2},
    "classifier": {"dropout": 0.2},
    "loss": {"name": "soft_cross_entropy", "humans": 10},
    "training": COMMON | {
        "optimizer": {"name": "adam", "learning_rate": 0.02, "betas": [0.9, 0.98], "weight_decay": 0.001},
        "schedule": {"name": "cosine", "warmup": 1.5},
        "clip_norm": 0.5,
    },
}  # fmt: skip

BAN: dict[str, Any] = {
    "name": "ban",
    "data": DATA,
    "features": FEATURES,
    "answers": {"size": 20, "from": "all"},
    "question_encoder": {"name": "gru", "embedding_dim": 12, "hidden_dim": 16},
    "fusion": {"name": "ban", "glimpses": 2, "rank": 16, "dropout": 0.2},
    "classifier": {"hidden": [24], "activation": "relu", "dropout": 0.3, "input_dropout": 0.0, "weight_norm": True},
    "loss": {"name": "binary_cross_entropy", "outside": "negative"},
    "training": COMMON | {
        "optimizer": {"name": "adamax", "learning_rate": 0.02, "epsilon": 1e-4},  # 1e-8 makes rounding errors large
        "schedule": {"name": "step", "factor": 0.25, "at": [6, 8], "warmup": 2},
        "clip_norm": 3.0,  # of some steps only: Adamax does not see a gradient made smaller at every step
    },
}  # fmt: skip

TUNED: dict[str, Any] = {
    "name": "tuned",
    "data": DATA,
    "features": {
        "tune": True, "tune_from": "features.3", "encoder": "squeezenet1_1", "layer": "features.4", "image_size": 24,
        "weights": "encoder.safetensors",
    },
    "question_encoder": {"name": "bow"},
    "fusion": {"name": "top_down", "fusion_dim": 16, "dropout": 0.2},
    "classifier": {"dropout": 0.2},
    "loss": {"name": "kl"},
    "training": COMMON | {
        "optimizer": {
            "name": "adamw", "learning_rate": 0.01, "weight_decay": 0.1, "epsilon": 1e-6,
            "parts": {"image_encoder": {"learning_rate": 0.001}},
        },
        "clip_norm": 1.0,
        "clip_norm_over": "part",
    },
}  # fmt: skip

TEXTCNN: dict[str, Any] = {
    "name": "textcnn",
    "data": DATA,
    "features": FEATURES,
    "words": {"vectors": "vectors.txt", "longest": 6},
    "question_encoder": {
        "name": "textcnn", "filters": [8, 8, 8], "embedding_dim": 8, "channels": "static_and_tuned", "dropout": 0.1,
    },
    "fusion": {"name": "concat"},
    "classifier": {"hidden": [24], "dropout": 0.2},
    "loss": {"name": "sampled_cross_entropy"},
    "training": COMMON | {
        "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9},
        "schedule": {"name": "step", "factor": 0.5, "every": 4},
    },
}  # fmt: skip

RECIPES: dict[str, dict[str, Any]] = {
    recipe["name"]: recipe for recipe in (PRODUCT, STACKED_ATTENTION, BAN, TUNED, TEXTCNN)
}
