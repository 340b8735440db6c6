"""Values of fairseq's options: words of a command line, or what a checkpoint holds, become values of our fields."""

import ast
import json
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from app.errors import ConfigError

LONGEST = 1000  # entries of a list that an expression may make


def fitted(value: Any, hint: Any) -> Any:
    """`value` as the type `hint` of a field wants it. Raises ValueError."""
    if get_origin(hint) in (Union, UnionType):
        if value is None or value in ("None", "null"):
            return None
        hint = next(kind for kind in get_args(hint) if kind is not NoneType)
    if get_origin(hint) is list:
        (kind,) = get_args(hint)
        found = python(value)
        return [fitted(each, kind) for each in (found if isinstance(found, (list, tuple)) else [found])]
    if hint is bool:
        return bool(python(value))
    if hint is int:
        number = float(value)
        if number != int(number):
            raise ValueError(f"{value} is not a whole number")
        return int(number)
    if hint is float:
        return float(value)
    return str(value) if hint is str else python(value)


def python(value: Any) -> Any:
    """A string that holds an expression of lists and numbers, such as `[(512, 3)] * 20`, as what it says."""
    if not isinstance(value, str):
        return value
    try:
        return evaluated(ast.parse(value.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"{value!r} is no list or number") from None


def evaluated(node: ast.expr) -> Any:
    """Constants, lists, tuples, negative numbers, and sums and products of these: what its options are made of."""
    match node:
        case ast.Constant():
            return node.value
        case ast.List() | ast.Tuple():
            return [evaluated(each) for each in node.elts]
        case ast.UnaryOp(op=ast.USub()):
            return -evaluated(node.operand)
        case ast.BinOp(op=ast.Add()):
            left, right = evaluated(node.left), evaluated(node.right)
            if isinstance(left, list) and isinstance(right, list) and len(left) + len(right) <= LONGEST:
                return left + right
        case ast.BinOp(op=ast.Mult()):
            left, right = evaluated(node.left), evaluated(node.right)
            if isinstance(left, list) and isinstance(right, int) and 0 <= len(left) * right <= LONGEST:
                return left * right
    raise ValueError(f"{ast.unparse(node)} is no list or number")


def table(value: Any) -> dict[str, Any]:
    """A JSON object, such as --eval-bleu-args; nothing for an empty one."""
    found = json.loads(value) if isinstance(value, str) else value
    if not isinstance(found, dict):
        raise ValueError(f"{value} is no JSON object")
    return found


def one_number(value: Any) -> Any:
    """fairseq's list with a value for each epoch, where it has one alone."""
    found = python(value)
    numbers = list(found) if isinstance(found, (list, tuple)) else [found]
    if len(set(numbers)) != 1:
        raise ValueError("a value for each epoch is not known here")
    return numbers[0]


def numbers_of(value: Any) -> list[float]:
    """One number or several, as `0.1,0.2` or a list."""
    numbers: list[float] = fitted(value, list[float])
    return numbers


def is_off(value: Any) -> bool:
    """Whether an option asks for nothing."""
    return value in (None, False, 0, -1, "", "{}", "none", "None", "False", "0", "-1") or value in ([], {}, (), [1])


def as_text(value: Any) -> str:
    """A value as an override writes it, for Hydra's parser."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(as_text, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{as_text(each)}' for key, each in value.items())}}}"
    text = str(value)
    if isinstance(value, (int, float)) or (text and all(letter.isalnum() or letter in "/._-+@$" for letter in text)):
        return text
    if "\\" in text or "'" in text or "${" in text or not text.isprintable():
        raise ConfigError([f"{text!r}: cannot be written as an override; rename it"])
    return f"'{text}'"
