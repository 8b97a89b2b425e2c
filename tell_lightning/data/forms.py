r"""Render conversations without running the chat template for each of them.

Most templates only write the contents of a conversation out, so two conversations of the same roles
differ in nothing but their contents. The template is run once on contents that it cannot look into
(`Opaque`), which shows its form:

    user, assistant    "### User:\n", 0, "\n\n### Assistant:\n", 1, "</s>\n\n"

Contents may be stripped, and asked whether they contain a text: the form holds for those that do
not. A template that does anything else with a content, or that might, has no form.
"""

import re
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, NamedTuple, Never, cast

from tell_lightning.data.records import Turn

MOST_FORMS = 64
"""Most combinations of roles that get a form."""
_MARK = "\ufdd1"
_PART = re.compile(f"{_MARK}([0-9]+){_MARK}")
_FILTERS = {"trim", "tojson", "length", "default", "list", "first", "last", "items"}
"""Filters that fail on an opaque content, give it back, or strip it."""
_TESTS = {"defined", "undefined", "none", "string", "mapping", "iterable", "true", "false"}
_CLOCK = "strftime_now"
_PROBES = ("Why?", " \n\t Why so? ", "\n\nx\u3000", "é {{ x }} <b>", "a" * 99)


class Written(NamedTuple):
    """How a content is written: its turn, and the method of str that strips it; "": as it is."""

    turn: int
    method: str = ""
    characters: str | None = None

    def of(self, contents: Sequence[str]) -> str:
        """Return what is written of these contents."""
        content = contents[self.turn]
        if not self.method:
            return content
        stripped: str = getattr(content, self.method)(self.characters)
        return stripped


class Form(NamedTuple):
    """What a template writes for all conversations of the same roles.

    Attributes:
        parts: Literal texts and contents.
        absent: Texts that a content must not contain, each with the index of the turn.
    """

    parts: list[str | Written]
    absent: set[tuple[int, str]]

    def render(self, contents: Sequence[str]) -> str | None:
        """Render contents; None if the form does not hold for them."""
        for index, text in self.absent:
            if text in contents[index]:
                return None
        return "".join([p if isinstance(p, str) else p.of(contents) for p in self.parts])


class Forms:
    """The forms of one chat template."""

    def __init__(self, tokenizer: Any, template: str, options: Mapping[str, Any]) -> None:
        """Compile nothing yet.

        Args:
            tokenizer: A Hugging Face tokenizer.
            template: The chat template.
            options: What the template is called with, besides the messages.
        """
        self._tokenizer, self._template, self._options = tokenizer, template, options
        self._forms: dict[tuple[object, ...], Form | None] = {}
        self._compiled: Any = None

    def render(self, turns: Sequence[Turn], generation: bool) -> str | None:
        """Render a conversation; None if the template must be run for it."""
        key = (generation, *[turn.role for turn in turns])
        if key not in self._forms:
            if len(self._forms) == MOST_FORMS:
                return None
            self._forms[key] = self._form([turn.role for turn in turns], generation)
        form = self._forms[key]
        return None if form is None else form.render([turn.content for turn in turns])

    def _form(self, roles: Sequence[str], generation: bool) -> Form | None:
        """Find the form of conversations of these roles, and try it out."""
        seen = _Seen([], set())
        opaque = [seen.write(Written(index)) for index in range(len(roles))]
        try:
            if self._compiled is None:
                self._compiled = _compiled(self._tokenizer, self._template)
            options = {**self._tokenizer.special_tokens_map, **self._options}
            texts = _PART.split(
                self._compiled.render(
                    messages=_messages(roles, opaque), add_generation_prompt=generation, **options
                )
            )
            parts: list[str | Written] = [*texts]
            parts[1::2] = [seen.written[int(number)] for number in texts[1::2]]
            form = Form(parts, seen.absent)
            found = {part.turn for part in parts if isinstance(part, Written)}
            if found == set(range(len(roles))) and self._agrees(form, roles, generation):
                return form
        except Exception:  # a template may do anything
            pass
        return None

    def _agrees(self, form: Form, roles: Sequence[str], generation: bool) -> bool:
        """Say whether a form writes what the tokenizer does."""
        probes = [
            [_PROBES[(start + n) % len(_PROBES)] for n in range(len(roles))]
            for start in range(len(_PROBES))
        ]
        return _MARK not in self._template and all(
            form.render(contents) in (None, self._applied(roles, contents, generation))
            for contents in probes
        )

    def _applied(self, roles: Sequence[str], contents: Sequence[str], generation: bool) -> object:
        return self._tokenizer.apply_chat_template(
            _messages(roles, contents),
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=generation,
            **self._options,
        )


class _Seen(NamedTuple):
    """What a template did with opaque contents."""

    written: list[Written]
    absent: set[tuple[int, str]]

    def write(self, how: Written) -> "Opaque":
        """Return a content that is written in some way."""
        self.written.append(how)
        return Opaque(f"{_MARK}{len(self.written) - 1}{_MARK}", self, how)


class Opaque:
    """A content that a template can write out, but not look into.

    It passes for text. As it is none, functions of Python that read text refuse it.
    """

    __slots__ = ("_how", "_seen", "_text")

    def __init__(self, text: str, seen: _Seen, how: Written | None = None) -> None:
        """Stand for a content; how None: for a content with other text around it."""
        self._text, self._seen, self._how = text, seen, how

    __class__ = property(lambda _: str)

    def __str__(self) -> str:
        return self._text

    def __add__(self, other: object) -> "Opaque":
        return Opaque(self._text + _text(other), self._seen)

    def __radd__(self, other: object) -> "Opaque":
        return Opaque(_text(other) + self._text, self._seen)

    def __contains__(self, text: object) -> bool:
        if self._how is None or type(text) is not str:
            self._refuse()
        self._seen.absent.add((self._how.turn, text))
        return False

    def startswith(self, text: object) -> bool:
        """Say no: the form holds for contents without the text."""
        return self.__contains__(text)

    def endswith(self, text: object) -> bool:
        """Say no: the form holds for contents without the text."""
        return self.__contains__(text)

    def strip(self, characters: object = None) -> "Opaque":
        """Return the content as `str.strip` would."""
        return self._stripped("strip", characters)

    def lstrip(self, characters: object = None) -> "Opaque":
        """Return the content as `str.lstrip` would."""
        return self._stripped("lstrip", characters)

    def rstrip(self, characters: object = None) -> "Opaque":
        """Return the content as `str.rstrip` would."""
        return self._stripped("rstrip", characters)

    def _stripped(self, method: str, characters: object) -> "Opaque":
        if self._how is None or self._how.method or type(characters) not in (str, NoneType):
            self._refuse()
        return self._seen.write(Written(self._how.turn, method, cast(str | None, characters)))

    def _refuse(self, *_: object) -> Never:
        raise LookupError("a content that cannot be looked into")

    __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __hash__ = __len__ = __iter__ = __getitem__ = __format__ = __repr__ = _refuse
    __mul__ = __rmul__ = __mod__ = __rmod__ = _refuse


def _text(value: object) -> str:
    if type(value) not in (str, Opaque):
        raise LookupError(f"a content that is joined with {value!r}")
    return str(value)


def _messages(roles: Sequence[str], contents: Sequence[object]) -> list[dict[str, object]]:
    return [{"role": r, "content": content} for r, content in zip(roles, contents, strict=True)]


def _compiled(tokenizer: Any, template: str) -> Any:
    """Compile a template, as transformers does, if it cannot look into a content unnoticed.

    Raises:
        LookupError: It might, for it goes on with what it has written, or the tokenizer renders in
            its own way.
        jinja2.TemplateError: It is no template.
    """
    from jinja2 import nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if type(tokenizer).apply_chat_template.__module__ != "transformers.tokenization_utils_base":
        raise LookupError("a tokenizer that renders in its own way")
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    tree = made.parse(template)
    # The macro that stands in for the clock only gets a format.
    tree.body = [node for node in tree.body if getattr(node, "name", "") != _CLOCK]
    calls = [call for call in tree.find_all(nodes.Call) if getattr(call.node, "name", "") == _CLOCK]
    writing = (nodes.Macro, nodes.AssignBlock, nodes.CallBlock, nodes.FilterBlock, nodes.Concat)
    loading = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.Block)
    if (
        any(True for _ in tree.find_all((*writing, *loading)))
        or any(node.name not in _FILTERS for node in tree.find_all(nodes.Filter))
        or any(node.name not in _TESTS for node in tree.find_all(nodes.Test))
        or any(not isinstance(argument, nodes.Const) for call in calls for argument in call.args)
        or any(not isinstance(node.right, nodes.Const) for node in tree.find_all(nodes.Mod))
    ):
        raise LookupError("a template that goes on with what it has written")
    return made.from_string(template)
