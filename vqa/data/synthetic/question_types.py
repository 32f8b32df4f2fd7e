"""How a question begins, as the official annotations state it: `question_type`."""

# The official lists (mscoco_question_types.txt, abstract_v002_question_types.txt), as far as these questions use them.
PREFIXES = {
    "real": (
        "how many",
        "is the",
        "what",
        "what color is the",
        "what is the",
        "what is",
        "is there a",
        "where is the",
        "is there",
        "are there",
        "which",
        "is",
        "are",
        "how",
        "are there any",
        "what color is",
        "what color",
        "do you",
        "do",
        "what is the color of the",
    ),
    "abstract": (
        "how many",
        "what color is the",
        "is the",
        "where is the",
        "what",
        "what is",
        "what is the",
        "is there a",
        "is there",
        "are there",
        "how",
        "which",
        "are",
        "do",
        "is",
        "are there any",
        "what color is",
        "what color",
    ),
}


def question_type(text: str, style: str) -> str:
    """The longest official prefix that the question begins with, or "none of the above".

    >>> question_type("What color is the star?", "real")
    'what color is the'
    """
    words = text.lower().rstrip("?.") + " "
    found = [prefix for prefix in PREFIXES[style] if words.startswith(prefix + " ")]
    return max(found, key=len, default="none of the above")
