"""Settings of the whole suite: no deadlines (shared machines are noisy), the same examples every time, own signals."""

import os
import signal

from hypothesis import settings

os.environ.setdefault("WANDB_MODE", "disabled")
settings.register_profile("vqa", deadline=None, derandomize=True)
settings.load_profile("vqa")

# A shell without a terminal starts `make test &` with Ctrl-C ignored, and every process that a test starts inherits
# that. SIGHUP stays as it came, so that `nohup make test` outlives its terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
