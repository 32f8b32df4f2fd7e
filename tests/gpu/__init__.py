"""`make gpu`: what only a GPU can show, in about ten minutes.

Without a GPU it says what it skips, and tries the rest small.

    PYTHONPATH=tests python -m gpu --out FILE [--table experiments/BENCHMARKS.md] [--only STEP]
"""
