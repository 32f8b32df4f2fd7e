"""Questions to words: one fixed rule for training, prediction and every question encoder."""

import re
import unicodedata

_APOSTROPHES = str.maketrans("’‘ʼ`´", "'''''")
# In order: numbers with inner marks (3.5, 2:30, 1,000), words with inner apostrophes (don't, o'clock), the ending 's.
_TOKEN = re.compile(r"\d+(?:[.,:]\d+)+|[^\W_]+(?:'(?!s(?![^\W_]))[^\W_]+)*|'s(?![^\W_])")


def tokenize(question: str) -> list[str]:
    """Split a question into lower-case words; any string gives a list, possibly an empty one.

    Punctuation separates words and is dropped. An apostrophe inside a word stays ("don't"), except that the ending
    "'s" is a word of its own, so that "man's" shares the vector of "man". A number keeps its inner marks ("3.5").
    Joining the words with spaces and splitting them again gives the same words.

    >>> import vqa
    >>> vqa.tokenize("What's the man's T-shirt colour?")
    ['what', "'s", 'the', 'man', "'s", 't', 'shirt', 'colour']
    """
    if question.isascii():
        text = question.lower().replace("`", "'")
    else:
        text = unicodedata.normalize("NFC", question.lower()).translate(_APOSTROPHES)
    return _TOKEN.findall(text)
