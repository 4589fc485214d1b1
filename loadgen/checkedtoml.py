"""TOML of the user's as a checked value: every mistake is named with its place, what was got, and what is wanted."""

import difflib
import tomllib
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from loadgen.units import parse_duration, parse_size

__all__ = ["Domain", "Duration", "Size", "check_toml"]

M = TypeVar("M", bound=BaseModel)


def _duration(value: object) -> object:
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError(f'got {value!r}, want a duration with a unit, such as "90s"')


def _size(value: object) -> object:
    if isinstance(value, str):
        return parse_size(value)
    raise ValueError(f'got {value!r}, want a size with a unit, such as "32KiB"')


def _domain(value: object) -> object:
    if (
        not isinstance(value, str)
        or not value
        or not value.isascii()
        or not all(part and part.replace("-", "").isalnum() for part in value.split("."))
    ):
        raise ValueError(f'got {value!r}, want a domain name, such as "loadgen.test"')
    return value.lower()


Duration = Annotated[float, BeforeValidator(_duration), Field(gt=0, le=7 * 86400)]
Size = Annotated[int, BeforeValidator(_size), Field(gt=0)]
Domain = Annotated[str, BeforeValidator(_domain)]


def check_toml(model: type[M], text: str, where: str) -> M:
    """Return TOML *text* as a *model*.

    Raises:
        ValueError: with one line per mistake, each naming the place in the user's own words.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{where}: not valid TOML: {error}") from None
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [f"{where}: {_explain(model, item)}" for item in error.errors(include_url=False)]
        raise ValueError("\n".join(lines)) from None


def _explain(model: type[BaseModel], item: Any) -> str:
    """Return one validation mistake as: place, got, want."""
    place = _place(item["loc"])
    kind, context, got = item["type"], item.get("ctx", {}), item.get("input")
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(item["loc"][-1]), _keys(model, item["loc"][:-1]), n=1, cutoff=0.6)
        parent = _place(item["loc"][:-1])
        hint = f"; did you mean {f'{parent}.' if parent else ''}{near[0]}?" if near else "; remove it"
        return f"unknown key {place}{hint}"
    if kind == "missing":
        return f"{place}: missing; it is required"
    if kind == "value_error":
        message = str(context["error"])
        return f"{place}: {message}" if place else message
    shown = f'"{got}"' if isinstance(got, str) else str(got).lower() if isinstance(got, bool) else repr(got)
    wants = {
        "greater_than": f"more than {context.get('gt')}",
        "greater_than_equal": f"at least {context.get('ge')}",
        "less_than_equal": f"at most {context.get('le')}",
        "literal_error": f"one of {context.get('expected')}".replace("'", '"'),
        "int_type": "a whole number",
        "float_type": "a number",
        "string_type": "a text in quotes",
        "bool_type": "true or false",
        "string_too_short": "a text that is not empty",
        "model_type": f"a table, such as [{place}]",
        "tuple_type": "one or more [[step]] tables",
    }
    return f"{place}: got {shown}, want {wants.get(kind, item['msg'])}"


def _place(location: tuple[int | str, ...]) -> str:
    """Return a location as the user would write it; positions count from 1."""
    text = ""
    for part in location:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the table at *location* may have."""
    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        field = next((f for n, f in current.model_fields.items() if part in (n, f.alias)), None)
        if field is None:
            return []
        current = field.annotation
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            inner = [a for a in getattr(current, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)]
            if not inner:
                return []
            current = inner[0]
    return [f.alias or n for n, f in current.model_fields.items()]
