"""How chat templates run: by the conventions of Hugging Face, in a sandbox, and within bounds."""

import pytest

from services.gateway.chat import ChatTemplate
from services.gateway.conversation import Conversation, Message
from services.wire.errors import BadState, InvalidRequest


def render(template: str, *contents: str) -> str:
    conversation = Conversation([Message("user", content) for content in contents])
    return ChatTemplate(template, {"bos_token": "<s>", "eos_token": "</s>"}).render(conversation)


def test_templates_follow_hugging_faces_conventions() -> None:
    assert (
        render(
            "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}", "a"
        )
        == "<s>a</s>"
    )
    assert render("{{ messages[0] | tojson }}", "é<") == '{"role": "user", "content": "é<"}'
    assert render("{% if add_generation_prompt and tools is none %}yes{% endif %}") == "yes"
    assert (
        render(
            "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}x{% endfor %}",
            "a",
            "b",
        )
        == "x"
    )
    assert render("{% generation %}{{ messages[0].content }}{% endgeneration %}", "a") == "a"
    assert len(render("{{ strftime_now('%Y') }}")) == 4


def test_what_is_metered_computes_what_it_always_did() -> None:
    assert (
        render("{{ 'a' ~ 1 ~ none ~ true }}|{{ [1] + [2] }}|{{ 'ab' * 2 }}|{{ 2 * 'ab' }}")
        == "a1NoneTrue|[1, 2]|abab|abab"
    )
    assert render("{{ 2 ** 10 }}|{{ 5 % 3 }}|{{ 1.5 + 1 }}|{{ 2 ** -1 }}") == "1024|2|2.5|0.5"
    assert (
        render("{{ '%s-%03d' % ('a', 7) }}|{{ '%s'|format('b') }}|{{ '{:>3}'.format(1) }}")
        == "a-007|b|  1"
    )
    assert render("{{ 'a'|center(5) }}|{{ nothing }}|{{ none }}") == "  a  ||None"
    assert render("{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}x{% endcall %}") == "x"
    assert (
        render("{% for i in [1, [2]] recursive %}{{ loop(i) if i is sequence else i }}{% endfor %}")
        == "12"
    )


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('only one message') }}",
        "{{ raise_exception('') }}",
        "{{ messages[7].content.x }}",
        "{{ {}['a'].b }}",
        "{{ nothing() }}",
        "{{ 'a' + 1 }}",
        "{{ 1 / 0 }}",
        "{{ 10.0 ** 1000 }}",
        "{{ strftime_now(1) }}",
        "{% include 'another' %}",
        "{{ '\\ud800' }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
)
def test_whatever_a_template_raises_is_a_refusal(template: str) -> None:
    with pytest.raises(InvalidRequest, match=r"chat template refuses the messages: .+"):
        render(template, "a")


def test_a_template_runs_in_a_sandbox() -> None:
    with pytest.raises(InvalidRequest):
        render("{{ messages.__class__.__mro__[1].__subclasses__() }}", "a")
    with pytest.raises(InvalidRequest):
        render("{% set _ = messages.append(1) %}", "a")


ENDLESS = {
    "loop": "{% for i in range(100000) %}{% for j in range(100000) %}{{ 'a' * 10000 }}{% endfor "
    "%}{% endfor %}",
    "range": "{% for i in range(10 ** 9) %}a{% endfor %}",
    "plain text in a loop": "{% for i in range(100000) %}" + "a" * 10_000 + "{% endfor %}",
    "macros": "{% macro m(n) %}"
    + "a" * 10_000
    + "{% if n < 40 %}{% set _ = m(n + 1) ~ m(n + 1) %}{% endif %}{% endmacro %}"
    "{{ m(0) }}",
    "times": "{{ 'x' * 10 ** 10 }}",
    "a list times": "{{ ([1] * 10 ** 10) | length }}",
    "power": "{{ 10 ** (10 ** 10) }}",
    "squares": "{% set n = namespace(x=10) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% "
    "endfor %}",
    "doubled": "{% set n = namespace(x='aa') %}{% for i in range(99) %}{% set n.x = n.x + n.x "
    "%}{% endfor %}",
    "joined": "{% set n = namespace(x='aa') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% "
    "endfor %}",
    "doubled list": "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = n.x + n.x "
    "%}{% endfor %}",
    "filter": "{{ 'a' | center(10 ** 10) }}",
    "indented": "{{ messages | tojson(indent=10 ** 10) }}",
    "method": "{{ 'a'.ljust(10 ** 10) }}",
    "sliced": "{{ 'abc' | slice(10 ** 12) | list }}",
    "words": "{{ lipsum(10 ** 9) }}",
    "width": "{{ '%10000000000d' % 1 }}",
    "given width": "{{ '%*d' % (10 ** 10, 1) }}",
    "format": "{{ '%10000000000d' | format(1) }}",
    "str.format": "{{ '{:10000000000}'.format(1) }}",
    "str.format with a width": "{{ '{:{}}'.format(1, 10 ** 10) }}",
}


@pytest.mark.parametrize("template", ENDLESS.values(), ids=ENDLESS.keys())
def test_a_template_that_would_not_end_or_fill_the_memory_is_stopped(template: str) -> None:
    with pytest.raises(InvalidRequest, match=r"it (repeats|computes|gives|formats)"):
        render(template, "a")


def test_each_rendering_may_do_as_much_as_the_first() -> None:
    template = ChatTemplate("{{ ('a' * 100000000) | length }}", {})
    for _ in range(4):
        assert template.render(Conversation([])) == "100000000"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for %}", "chat template, line 1"),
        ("\n{{ 'a' | nothing_known }}", "line 2: No filter named 'nothing_known'"),
        ("{{ " + "(" * 100_000, "recursion"),
    ],
)
def test_a_template_that_is_none_is_refused_at_once(template: str, said: str) -> None:
    with pytest.raises(BadState, match=said):
        render(template)
