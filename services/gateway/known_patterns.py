"""Regular expressions of published tokenizers that take time as the text grows, and no more.

They are searched with backtracking, and most others take time with the square of a text, of spaces
say: also published ones, such as `\\s+$`.
"""

import re

_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_ANY_CASE = rf"(?i:{_CONTRACTIONS})"
# What each pattern below ends with: no other way is found for white space than to take it.
_SPACE = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_PUNCTUATION = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_PUNCTUATION_OR_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_ASCII_PUNCTUATION = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""


def _by_case(digits: str, after: str) -> str:
    return (
        rf"{_BEFORE}{_UPPER}*{_LOWER}+{after}|{_BEFORE}{_UPPER}+{_LOWER}*{after}"
        rf"|{digits}|{_PUNCTUATION_OR_SLASH}|{_SPACE}"
    )


PUBLISHED = frozenset(
    (
        # GPT-2's
        rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+",
        # Llama 3's, GLM 4's, and Qwen 2's and 3's, which take digits one by one
        rf"{_ANY_CASE}|{_BEFORE}\p{{L}}+|\p{{N}}{{1,3}}|{_PUNCTUATION}|{_SPACE}",
        rf"{_ANY_CASE}|{_BEFORE}\p{{L}}+|\p{{N}}|{_PUNCTUATION}|{_SPACE}",
        # gpt-oss', Llama 4's, and Mistral's
        _by_case(r"\p{N}{1,3}", f"{_ANY_CASE}?"),
        _by_case(r"\p{N}", ""),
        # DeepSeek-V3's, beside single classes
        rf"{_ASCII_PUNCTUATION}|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
        rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACE}",
    )
)
# A class of characters, once or in a row: nothing comes after it that could fail.
_ONE_CLASS = re.compile(
    r"( |\w|\\[dsSwrnt]|\\p\{\w+\}|\[(?:[^\[\]\\&]|\\[^bBAzZG])+\])(\+|\{\d(,\d?)?\})?"
)


def is_known(pattern: str) -> bool:
    """Whether the pattern takes time as the text grows."""
    return pattern in PUBLISHED or _ONE_CLASS.fullmatch(pattern) is not None
