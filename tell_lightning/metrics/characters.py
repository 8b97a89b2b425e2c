"""What texts are written in: scripts without spaces between words, and composed characters."""

import re
import unicodedata
from collections.abc import Sequence

UNSPACED = (
    "\u0e00-\u109f\u1780-\u17ff\uaa60-\uaa7f"  # Thai, Lao, Tibetan, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Japanese
    "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
)
"""Scripts that write no spaces between words, as ranges of a regular expression's class."""
LEAST_SHARE = 0.25
"""Share of such letters from which on a text counts as one without spaces."""
LEAST_CHINESE = 0.9
"""Share of Chinese characters among them from which on the text is Chinese."""

_UNSPACED = re.compile(f"[{UNSPACED}]")
_CHINESE = re.compile("[\u3005-\u3007\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LETTER = re.compile(rf"\w|[{UNSPACED}]")
_SPACED_LETTER = rf"[^\W{UNSPACED}]"


def composed(text: str) -> str:
    r"""Write characters in their composed form (NFC), so that equal texts are equal.

    >>> composed("cafe\u0301") == "caf\u00e9"
    True
    """
    return unicodedata.normalize("NFC", text)


def is_exact(answer: str, reference: str | None) -> bool:
    r"""Say whether an answer equals its reference but for outer white space.

    >>> is_exact("cafe\u0301 ", "caf\u00e9")
    True
    """
    return reference is not None and composed(answer).strip() == composed(reference).strip()


def is_unspaced(texts: Sequence[str]) -> bool:
    """Say whether texts are written without spaces between words.

    >>> is_unspaced(["北京是中国的首都。"]), is_unspaced(["Beijing (北京) is the capital."])
    (True, False)
    """
    letters = sum(len(_LETTER.findall(text)) for text in texts)
    return sum(len(_UNSPACED.findall(text)) for text in texts) > LEAST_SHARE * letters


def is_chinese(texts: Sequence[str]) -> bool:
    """Say of texts without spaces whether nearly all of it is Chinese characters."""
    unspaced = sum(len(_UNSPACED.findall(text)) for text in texts)
    chinese = sum(len(_CHINESE.findall(text)) for text in texts)
    return chinese >= LEAST_CHINESE * unspaced


def count_word(word: str, text: str) -> int:
    """Count how often a text has a word, whatever its case.

    Between words of a script with spaces there must be something that is no letter of such a
    script. In scripts without spaces the word is looked for anywhere.

    >>> count_word("cat", "A cat; concatenate"), count_word("北京", "我爱北京和Python")
    (1, 1)
    >>> count_word("python", "我爱北京和Python")
    1
    """
    word, text = composed(word).casefold(), composed(text).casefold()
    before = rf"(?<!{_SPACED_LETTER})" if not _UNSPACED.match(word[0]) else ""
    after = rf"(?!{_SPACED_LETTER})" if not _UNSPACED.match(word[-1]) else ""
    return len(re.findall(f"{before}{re.escape(word)}{after}", text))
