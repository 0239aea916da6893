"""Which regular expressions of tokenizers are searched in the gateway itself."""

import pytest

from services.gateway.known_patterns import is_known

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT_OSS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK_V3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize(
    "pattern",
    [
        *(LLAMA_3, LLAMA_3.replace("{1,3}", ""), GPT_OSS, DEEPSEEK_V3),
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        *(
            r"\p{N}{1,3}",
            "[一-龥\u3040-ゟ\u30a0-ヿ]+",
            r"[0-9]",
            r"\d+",
            r"[\r\n]",
            " {2,}",
            r"[^\s\]]+",
        ),
    ],
)
def test_published_patterns_and_single_classes_are_known(pattern: str) -> None:
    assert is_known(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        *(r"(a+)+$", r"(?:a|a)*b", r"a*b", r"\s+$", r"\s*\n", r"(?=(a+)+b)a", r"\d+(?=(\d{3})+)"),
        *(LLAMA_3 + "|x", LLAMA_3.removesuffix(r"|\s+"), LLAMA_3 + "\n", "[a]{1,99999}", "[[a]b]+"),
        *(r"\b+", r"[a&&[b]]+", "a**", "[a]+?", "[a]++", "", "(a)", r"[^", r"[\s]*", "a|b"),
    ],
)
def test_all_others_are_not(pattern: str) -> None:
    assert not is_known(pattern)
