"""Settings of the whole suite: no deadlines (shared machines are noisy), the same examples every time."""

import os

from hypothesis import settings

os.environ.setdefault("WANDB_MODE", "disabled")
settings.register_profile("vqa", deadline=None, derandomize=True)
settings.load_profile("vqa")
