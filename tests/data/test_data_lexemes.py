"""Tokens of code and their lexical types: those of Python are what the standard library's own tokenizer says."""

import inspect
import io
import keyword
import tokenize

import pytest

from cljax import data

TYPED = {
    "python": {"lambda": "keyword", "func": "identifier", "//": "operator", "//=": "operator", "# a": "comment", ":=": "operator", "@": "operator"},
    "ruby": {"elsif": "keyword", "@name": "identifier", "# a": "comment", "'a'": "string", "...": "operator"},
    "javascript": {"typeof": "keyword", "$": "operator", "$x": "identifier", "// a": "comment", "`a`": "string", "=>": "operator"},
    "java": {"final": "keyword", "/* a\n b */": "comment", "1.5f": "number", ";": "separator"},
    "go": {"chan": "keyword", ":=": "operator", '"a"': "string", "{": "separator"},
    "php": {"foreach": "keyword", "$this": "identifier", "->": "operator", "# a": "comment"},
}


@pytest.mark.parametrize("language", TYPED)
def test_type_of_a_token(language):
    found = {token: data.lexical_type(token, language) for token in TYPED[language]}
    assert found == TYPED[language] and set(found.values()) <= set(data.LEXICAL_TYPES)


def test_types_of_python_are_those_of_its_tokenizer():
    kinds = {tokenize.NUMBER: {"number"}, tokenize.STRING: {"string"}, tokenize.COMMENT: {"comment"}, tokenize.OP: {"separator", "operator"}}
    source = inspect.getsource(inspect) + inspect.getsource(tokenize)
    expected = [token for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.string.strip()]
    found = data.python_tokens(source)
    assert [token for token, _ in found] == [token.string for token in expected] and len(found) > 15000
    for (token, kind), own in zip(found, expected, strict=True):
        names = {"keyword"} if keyword.iskeyword(token) else {"identifier"}
        assert kind in (names if own.type == tokenize.NAME else kinds.get(own.type, {"string"}))


def test_a_formatted_string_is_a_string():
    found = data.python_tokens("x = f'one {two} three' + rb'\\n'")
    assert found[0] == ("x", "identifier") and found[-1] == ("rb'\\n'", "string")
    assert all(kind == "string" for token, kind in found if "one" in token or "three" in token)


def test_code_that_ends_too_soon_is_read_up_to_there():
    assert data.python_tokens("f(a, '")[:3] == [("f", "identifier"), ("(", "separator"), ("a", "identifier")]
    assert data.python_tokens("") == []


@pytest.mark.errors
def test_bad_input_is_named():
    for call, message in (
        (lambda: data.python_tokens(b"x"), "code must be a string, got bytes"),
        (lambda: data.lexical_type(3), "token must be a string, got int"),
        (lambda: data.lexical_type(""), "token must not be empty"),
        (lambda: data.lexical_type("x", "perl"), "language must be one of"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            call()
