"""The project's own recipes by name: in `experiments/` there may be others, a user's, which the suite leaves alone."""

from helpers.training import PROJECT

PUBLISHED = (
    "ban", "block", "butd", "clevr_relation", "dppnet", "film", "hiecoatt", "ibowimg", "mcan_large", "mcan_small",
    "mcb",
    "mcb_att", "mfb_coatt", "mfh_coatt", "mlb", "mutan", "mutan_att", "san", "san_cnn", "show_ask_attend_answer",
    "vis_lstm", "vqa2015_bow", "vqa2015_lstm",
)  # fmt: skip
EXPERIMENTS = (
    *PUBLISHED, "daquar", "daquar_best", "easy_vqa", "prefix_lm",
    "demo/concat", "demo/product", "demo/question_only", "demo/stacked_attention",
)  # fmt: skip
ABLATIONS = (
    "attending_fusions", "batches", "batches_daquar", "daquar", "daquar_sweep", "easy_vqa", "every_fusion", "fusion",
    "pooled_fusions", "question_encoders",
)  # fmt: skip
EXPERIMENT_FILES = [PROJECT / f"experiments/{name}.yaml" for name in EXPERIMENTS]
ABLATION_FILES = [PROJECT / f"experiments/ablations/{name}.yaml" for name in ABLATIONS]
