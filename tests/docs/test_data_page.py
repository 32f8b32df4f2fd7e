"""docs/data.md lists every format, with its splits."""

import re

from helpers.training import PROJECT

from vqa.data.formats import FORMATS


def test_every_format_has_one_row_and_only_its_own_splits() -> None:
    page = (PROJECT / "docs/data.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in page.splitlines()
        if line.startswith("| `") and not line.startswith("| `--")
    ]
    splits = {row[0].strip("`"): row[2] for row in rows}
    assert list(splits) and sorted(splits) == sorted(FORMATS) and len(rows) == len(FORMATS)
    for name, said in splits.items():
        if said.startswith(("as ", "yours")):
            continue
        assert set(said.split(", ")) == set(FORMATS[name].splits), name
    assert all(row[4] in ("real", "miniature") for row in rows)
