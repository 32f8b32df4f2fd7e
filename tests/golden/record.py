"""Record the golden losses of this version of torch and this kind of machine:

    OMP_NUM_THREADS=1 PYTHONPATH=tests python tests/golden/record.py

Two occasions allow it. A new version of torch, or a new kind of machine: on a commit whose golden test passed with the
old version, so that whatever moved, torch moved it. Or a formula that was changed on purpose: then the commit that
records says which, and what evidence there is that the new one is right, and removes the files of other versions. A
test that fails for a reason that nobody knows is no occasion.

What is recorded is first compared with what was golden until now, and the differences are printed.
"""

import contextlib
import json
import platform
import tempfile
from pathlib import Path

from helpers.golden import LOSSES, copy_old_files, differences, golden_losses, losses_file, torch_version, train_recipe
from helpers.golden_recipes import RECIPES


def main() -> None:
    """Train every recipe and write the file."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(copy_old_files(Path(name))):
        found = {name: train_recipe(recipe, Path("golden")) for name, recipe in RECIPES.items()}
    before = golden_losses()["recipes"] if any(LOSSES.glob("torch-*.json")) else {}
    for name, rows in found.items():
        for line in differences(rows, before.get(name, rows)):
            print(f"{name}: {line}")
    version = ".".join(map(str, torch_version()))
    content = {"torch": version, "machine": platform.machine(), "recipes": found}
    losses_file().write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"recorded: {losses_file()}")


if __name__ == "__main__":
    main()
