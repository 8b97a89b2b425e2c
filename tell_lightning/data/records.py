"""Turn a row into a record: a checked conversation. The text itself is not changed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from tell_lightning.data.formats import ADVICE, KeyTwiceError, RecordError, cut, parse_json

Role = Literal["system", "user", "assistant"]
_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}
_TOOL_ROLES = {"tool", "function", "function_call", "observation"}


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """An optional system turn, then user and assistant turns in alternation.

    Attributes:
        id: Names the row; no other row of the source has the same id.
        where: File and line, for messages.
        turns: The messages.
        row: The fields as read.
        last_only: Whether only the last response is trained on.
    """

    id: str
    where: str
    turns: tuple[Turn, ...]
    row: Mapping[str, object]
    last_only: bool = False

    @property
    def response(self) -> str | None:
        """The last assistant text, if the conversation ends in one."""
        return self.turns[-1].content if self.turns[-1].role == "assistant" else None

    @property
    def prompt_turns(self) -> tuple[Turn, ...]:
        """All turns before the response."""
        return self.turns[:-1] if self.turns[-1].role == "assistant" else self.turns


@dataclass(frozen=True, slots=True)
class Record(Conversation):
    """A row as read."""


@dataclass(frozen=True, kw_only=True)
class Fields:
    """The names of the fields of a row."""

    prompt: str = "prompt"
    """Field with the prompt, such as query or instruction."""
    input: str | None = None
    """Field added to the prompt after an empty line; an empty value adds nothing."""
    response: str | None = "response"
    """Field with the response, such as output; null: rows have none (prediction only)."""
    system: str | None = None
    """Field with the system text; an empty value adds nothing."""
    messages: str | None = None
    """Field with a list of {role, content} or, as in ShareGPT, of {from, value}; it replaces
    prompt, input and response."""
    id: str | None = None
    """Field with an id that no other row has; null: file name and line number."""
    as_json: bool = False
    """Whether values that are no text (objects, lists, numbers) are written as JSON; if not, they
    are an error."""


def record_from_row(
    row: object, *, fields: Fields, where: str, id: str, need_response: bool = True
) -> Record:
    """Check one row and return it as a record.

    Args:
        row: The row as read.
        fields: The names of its fields.
        where: File and line, for messages.
        id: The id of the record, unless ``fields.id`` names a field with it.
        need_response: Whether a row without a response is an error.

    Raises:
        RecordError: A field is missing, empty or no text, or the turns do not alternate.
    """
    if not isinstance(row, Mapping):
        raise RecordError(f"{where}: a row must be an object with fields, got {cut(row)}. {ADVICE}")
    if fields.messages is None:
        turns = _pair(row, fields, where, need_response)
    else:
        turns = _conversation(row, fields.messages, where)
    if fields.system is not None and not _is_blank(_value(row, fields.system, where)):
        turns = (Turn("system", _text(row, fields.system, where, fields.as_json)), *turns)
    roles = [turn.role for turn in turns]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    if not spoken or any(role != ("user", "assistant")[i % 2] for i, role in enumerate(spoken)):
        raise RecordError(
            f"{where}: turns must alternate user, assistant after at most one system turn, "
            f"got {cut(', '.join(roles))}. {ADVICE}"
        )
    if need_response and roles[-1] != "assistant":
        raise RecordError(
            f"{where}: a conversation must end in an assistant turn, got {roles[-1]!r}. {ADVICE}"
        )
    return Record(id if fields.id is None else _id(row, fields.id, where), where, turns, row)


def other_columns(row: Mapping[str, object], fields: Fields) -> dict[str, Any]:
    """Return the columns of a row that no field names, as JSON values.

    Bytes and numbers that are not finite become None, other values that JSON lacks become text.

    >>> other_columns({"prompt": "p", "response": "r", "source": "mail"}, Fields())
    {'source': 'mail'}
    """
    named = {name for name in vars(fields).values() if isinstance(name, str)}
    text = json.dumps(
        {name: value for name, value in row.items() if name not in named},
        default=lambda value: None if isinstance(value, bytes) else str(value),
    )
    columns: dict[str, Any] = json.loads(text, parse_constant=lambda _: None)
    return columns


def record_from_line(line: str, *, fields: Fields, where: str, id: str) -> Record:
    """Read a line to predict: a JSON object if it starts with ``{``, else the prompt itself.

    Raises:
        RecordError: The line is empty, or it starts with ``{`` and is no valid row.
    """
    if not line.lstrip().startswith("{"):
        plain = Fields(prompt=fields.prompt, response=None)
        return record_from_row(
            {fields.prompt: line}, fields=plain, where=where, id=id, need_response=False
        )
    try:
        row = parse_json(line)
    except KeyTwiceError as error:
        raise RecordError(f"{where}: {error}. Correct the line.") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(
            f"{where}: a line that starts with {{ must be valid JSON, got {cut(line)}: {error}. "
            "Correct the line."
        ) from error
    return record_from_row(row, fields=fields, where=where, id=id, need_response=False)


def _pair(
    row: Mapping[str, object], fields: Fields, where: str, need_response: bool
) -> tuple[Turn, ...]:
    prompt = _text(row, fields.prompt, where, fields.as_json)
    if fields.input is not None and not _is_blank(_value(row, fields.input, where)):
        prompt = f"{prompt}\n\n{_text(row, fields.input, where, fields.as_json)}"
    user = Turn("user", prompt)
    if fields.response is None or (not need_response and _is_blank(row.get(fields.response))):
        return (user,)
    return (user, Turn("assistant", _text(row, fields.response, where, fields.as_json)))


def _conversation(row: Mapping[str, object], name: str, where: str) -> tuple[Turn, ...]:
    messages = _value(row, name, where)
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise RecordError(
            f"{where}: field {name!r} must be a list of messages, got {cut(messages)}. {ADVICE}"
        )
    places = (f"{where}: {name}[{number}]" for number in range(len(messages)))
    return tuple(map(_message, messages, places))


def _message(message: object, where: str) -> Turn:
    if not isinstance(message, Mapping):
        raise RecordError(f"{where} must be {{role, content}}, got {cut(message)}. {ADVICE}")
    role_key, text_key = ("from", "value") if "from" in message else ("role", "content")
    role = _text(message, role_key, where)
    if role in _TOOL_ROLES or any(message.get(key) for key in ("tool_calls", "function_call")):
        raise RecordError(
            f"{where}: messages must be texts of system, user and assistant, got a tool's of role "
            f"{cut(role)}. Write calls as text of assistant turns and results as text of user "
            "turns, or remove the row."
        )
    if role_key == "from":
        role = _SHAREGPT_ROLES.get(role, role)
    if role not in get_args(Role):
        names = "system, human or gpt" if role_key == "from" else "system, user or assistant"
        raise RecordError(f"{where}: {role_key} must be {names}, got {cut(role)}. {ADVICE}")
    content = _joined(_value(message, text_key, where), where)
    return Turn(cast(Role, role), _text({text_key: content}, text_key, where))


def _joined(content: object, where: str) -> object:
    """Join the parts of a content that is a list of {type: text, text}."""
    if not isinstance(content, Sequence) or isinstance(content, str):
        return content
    texts = []
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text":
            raise RecordError(
                f"{where}: parts of a content must be {{type: text, text}}, got {cut(part)}. "
                f"{ADVICE}"
            )
        texts.append(_text(part, "text", where))
    return "".join(texts)


def _value(row: Mapping[str, object], name: str, where: str) -> object:
    if name not in row:
        raise RecordError(
            f"{where}: field {name!r} must be there, got the fields {cut(list(row))}. "
            "Set fields to the names that the rows have, or correct the row."
        )
    return row[name]


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _text(row: Mapping[str, object], name: str, where: str, as_json: bool = False) -> str:
    value = _value(row, name, where)
    is_text = value is None or isinstance(value, str)
    if as_json and not is_text:
        value = json.dumps(value, ensure_ascii=False, default=str)
    if not isinstance(value, str) or not value.strip():
        advice = ADVICE if is_text else f"Set fields.as_json: true to write it as JSON. {ADVICE}"
        raise RecordError(
            f"{where}: field {name!r} must be a non-empty string, got {cut(value)}. {advice}"
        )
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # a JSON escape can be half of a surrogate pair
        got = cut(value[error.start])
        raise RecordError(
            f"{where}: field {name!r} must be Unicode text, got the lone surrogate {got}. {ADVICE}"
        ) from error
    return value


def _id(row: Mapping[str, object], name: str, where: str) -> str:
    value = _value(row, name, where)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(row, name, where)
