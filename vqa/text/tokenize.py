"""Questions to words: one fixed rule for training, prediction and every question encoder.

Words are those of Unicode (UAX 29), with the published recipes' rules for English letter for letter. A combining mark
stays with its letter. In scripts that are written without spaces every letter is a word.
"""

import re
import unicodedata
from functools import cache

_APOSTROPHES = str.maketrans("’‘ʼ`´", "'''''")
# In order: numbers with inner marks (3.5, 2:30, 1,000), words with inner apostrophes (don't, o'clock), the ending 's.
_TOKEN = re.compile(r"\d+(?:[.,:]\d+)+|[^\W_]+(?:'(?!s(?![^\W_]))[^\W_]+)*|'s(?![^\W_])")
_DOTTED_I = re.compile("i\u0307+")  # the small letter of İ, in every language but Turkish an i
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Blocks of scripts without spaces between words; digits and signs in them are what they are elsewhere.
_WITHOUT_SPACES = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Myanmar
    "\u1780-\u17ff"  # Khmer
    "\u1950-\u19df\u1a20-\u1aaf\uaa80-\uaadf"  # Tai Le, New Tai Lue, Tai Tham, Tai Viet
    "\u1b00-\u1b7f\ua980-\ua9df"  # Balinese, Javanese
    "\u3000-\u312f\u31a0-\u31bf\u31f0-\u31ff\uff66-\uff9f\U0001aff0-\U0001b16f"  # Hiragana, Katakana, Bopomofo
    f"{HAN}"
    "\ua000-\ua48f"  # Yi
)


def tokenize(question: str) -> list[str]:
    """Split a question into lower-case words; any string gives a list, possibly an empty one.

    Punctuation separates words and is dropped. An apostrophe inside a word stays ("don't"), except that the ending
    "'s" is a word of its own, so that "man's" shares the vector of "man". A number keeps its inner marks ("3.5").
    Joining the words with spaces and splitting them again gives the same words.

    >>> import vqa
    >>> vqa.tokenize("What's the man's T-shirt colour?")
    ['what', "'s", 'the', 'man', "'s", 't', 'shirt', 'colour']
    >>> vqa.tokenize("क्या यह काला है?"), vqa.tokenize("这是什么?")
    (['क्या', 'यह', 'काला', 'है'], ['这', '是', '什', '么'])
    """
    if question.isascii():
        return _TOKEN.findall(question.lower().replace("`", "'"))
    text = _DOTTED_I.sub("i", unicodedata.normalize("NFC", question).lower())
    text = unicodedata.normalize("NFC", text).translate(_APOSTROPHES)
    special, token = _every_script()
    return (token if special.search(text) else _TOKEN).findall(text)


def tokenize_latin(question: str) -> list[str]:
    """What `tokenize` was in version 0.1.0, for the runs that it trained: a mark without a letter of its own is dropped
    and ends the word, and scripts without spaces are not cut."""
    if question.isascii():
        return tokenize(question)
    return _TOKEN.findall(unicodedata.normalize("NFC", question.lower()).translate(_APOSTROPHES))


@cache
def _every_script() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What only some scripts have, and `_TOKEN` for all of them; made when first needed, for it takes a while."""
    marks = _combining_marks()
    after = f"(?:[{marks}]|[\u200c\u200d](?=[{marks}]|[^\\W_]))*"  # marks, and joiners within a word
    letter = rf"(?:(?![{_WITHOUT_SPACES}])[^\W_]|\d){after}"
    alone = rf"(?![\W\d_])[{_WITHOUT_SPACES}]{after}"
    word = rf"(?:{letter})+(?:'(?!s(?!{letter}|[{marks}]))(?:{letter})+)*"
    token = re.compile(rf"\d+(?:[.,:]\d+)+|{word}|{alone}|'s(?!{letter})")
    return re.compile(f"[{marks}\u200c\u200d{_WITHOUT_SPACES}]"), token


def _combining_marks() -> str:
    """All combining marks, as ranges of a regular expression's class."""
    codes = (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0))
    marks = [code for code in codes if unicodedata.category(chr(code)).startswith("M")]
    known = set(marks)
    firsts = [code for code in marks if code - 1 not in known]
    lasts = [code for code in marks if code + 1 not in known]
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in zip(firsts, lasts, strict=True))
