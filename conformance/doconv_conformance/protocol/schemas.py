"""The JSON schemas that ship with the suite, and errors a porter can read in one line."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

SHOWN = 200


def schema(name: str) -> dict[str, Any]:
    """A schema that ships with the suite: "protocol", "report" or "vectors"."""
    return json.loads((files(__package__) / "schema" / f"{name}.json").read_text("utf-8"))


def problem(message: Any, name: str, definition: str = "") -> str:
    """What is wrong with a message, as `field.field[0]: ...`; empty where nothing is.

    Args:
        message: decoded JSON.
        name: of the schema.
        definition: one of its `$defs`, where the message is not the whole schema's.
    """
    error = best_match(_validator(name, definition).iter_errors(message))
    return "" if error is None else _in_words(error)


@cache
def _validator(name: str, definition: str) -> Draft202012Validator:
    whole = schema(name)
    if definition:
        whole = {"$schema": whole["$schema"], "$defs": whole["$defs"], "$ref": f"#/$defs/{definition}"}
    return Draft202012Validator(whole)


def _in_words(error: ValidationError) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path).lstrip(".")
    text = error.message
    if error.validator == "required" and isinstance(error.instance, dict):
        text = f"lacks {', '.join(sorted(set(error.validator_value) - set(error.instance)))}"
    elif error.validator == "additionalProperties" and error.validator_value is False:
        known = error.schema.get("properties", {})
        text = f"has unknown fields: {', '.join(sorted(set(error.instance) - set(known)))}"
    elif error.validator == "enum":
        text = f"must be one of {', '.join(map(str, error.validator_value))}; received {json.dumps(error.instance)}"
    elif error.validator == "type":
        wanted = error.validator_value
        wanted = wanted if isinstance(wanted, str) else " or ".join(wanted)
        text = f"must be of type {wanted}; received {json.dumps(error.instance)}"
    text = text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
    return f"{where}: {text}" if where else text
