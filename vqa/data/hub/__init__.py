"""Data sets of the Hugging Face hub, made an ordinary folder: `get`.

The folder holds one table a split (JSON lines, read by the format `table`) and every image once, named by its digest.
"""
