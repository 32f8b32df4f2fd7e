"""Your own data as a table: CSV, TSV, JSON, JSON lines or parquet, one question a row.

Columns: an image (its path from the table's folder, or the image itself) and a question; an answer, 1 to 10 of them, or
the choice that is right by its letter or number; optional choices, types, split, language, and an id, a whole number or
a text. They are known by their usual names (`names.ROLES`), or named by `TableOptions`. Other columns are ignored, but
may be what `where` chooses rows by, and what `data.holdout.by` keeps together.

The root is a folder with one file a split (`train.csv`, `val.parquet`, …), or a single file, or a folder with that one
file: with a column `split`, the rows of the split that is asked for; without one, its name is the split ("train" in
`train.csv`).
"""

from vqa.data.formats.table.names import PLAIN, TableOptions
from vqa.data.formats.table.reader import read, read_column, splits

ABOUT = (
    "your own data: CSV, TSV, JSON (lines) or parquet with image, question, answer(s) and optional choices and types"
)

__all__ = ["ABOUT", "PLAIN", "TableOptions", "read", "read_column", "splits"]
