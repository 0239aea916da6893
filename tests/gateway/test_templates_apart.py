"""A chat template runs in a process of its own, which is ended where the template does not end."""

import sys
from collections.abc import Iterator

import pytest

from services.gateway.chat import ChatTemplate
from services.gateway.conversation import Conversation, Message
from services.gateway.templates_apart import TemplateApart
from services.wire.errors import InvalidRequest

# Calls whose work nobody meters, but where the messages say otherwise.
ENDLESS = """
{%- if messages[0].content == 'end' %}{{ messages[0].role }}{{ eos_token }}
{%- elif messages[0].content == 'refuse' %}{{ raise_exception('not "this"') }}
{%- elif messages[0].content == 'grow' %}
{%- for i in range(60) %}{{ ('a' * 4000000).split('a') | list | length }}
{%- set ns.kept = [ns.kept, ('ab' * 2000000).split('b')] %}{% endfor %}
{%- else %}
{%- set text = 'a' * 1000000 %}{% for i in range(99999) %}{% set n = text.count('ab') %}{% endfor %}
{%- endif %}"""


def said(content: str) -> Conversation:
    return Conversation([Message("user", content)])


@pytest.fixture
def apart() -> Iterator[TemplateApart]:
    template = TemplateApart(
        "{% set ns = namespace(kept=[]) %}" + ENDLESS, {"eos_token": "</s>"}, max_seconds=2.0
    )
    yield template
    template.close()


def test_a_template_that_does_not_end_is_ended_and_the_next_chat_is_served(
    apart: TemplateApart,
) -> None:
    assert apart.render(said("end")) == "user</s>"
    with pytest.raises(InvalidRequest, match="it took more than 2 s, or more than 1024 MiB"):
        apart.render(said("for ever"))
    assert apart.render(said("end")) == "user</s>"
    with pytest.raises(InvalidRequest):  # by the process, or with it
        apart.render(said("grow"))
    assert apart.render(said("end")) == "user</s>"


def test_it_renders_and_refuses_as_it_does_here(apart: TemplateApart) -> None:
    here = ChatTemplate("{% set ns = namespace(kept=[]) %}" + ENDLESS, {"eos_token": "</s>"})
    assert apart.literals == here.literals
    assert apart.render(said("end")) == here.render(said("end"))
    refusals = []
    for template in (apart, here):
        with pytest.raises(InvalidRequest) as refused:
            template.render(said("refuse"))
        refusals.append(str(refused.value))
    assert refusals[0] == refusals[1]


def test_half_an_answer_of_a_process_that_ended_is_none() -> None:
    half = (sys.executable, "-c", "input(); print('{', end='')")
    template = TemplateApart("{{ messages[0].content }}", {}, command=half)
    with pytest.raises(InvalidRequest, match="MiB of memory"):
        template.render(said("word"))
    template.close()
