"""`make results`; see the package."""

import sys

from results.numbers import collect, keep
from results.pages import PAGES, rewritten
from vqa.files import atomic_write


def main() -> int:
    """Keep the numbers of the run folders that are there, and write the tables of the pages."""
    keep(collect())
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if (new := rewritten(text)) != text:
            with atomic_write(page) as file:
                file.write(new)
            print(f"{page}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
