"""Code as tokens with their lexical types."""

import contextlib
import io
import keyword
import re
import tokenize

from cljax.core import check

LEXICAL_TYPES = ("keyword", "identifier", "separator", "operator", "number", "string", "comment")

_KEYWORDS = {
    "python": " ".join(keyword.kwlist),
    "ruby": "BEGIN END alias and begin break case class def defined? do else elsif end ensure false for if in module next nil not or redo rescue "
    "retry return self super then true undef unless until when while yield",
    "javascript": "async await break case catch class const continue debugger default delete do else export extends false finally for function if "
    "import in instanceof let new null of return static super switch this throw true try typeof var void while with yield",
    "java": "abstract assert boolean break byte case catch char class const continue default do double else enum extends false final finally float "
    "for goto if implements import instanceof int interface long native new null package private protected public return short static super switch "
    "synchronized this throw throws transient true try void volatile while",
    "go": "break case chan const continue default defer else fallthrough false for func go goto if import interface map nil package range return "
    "select struct switch true type var",
    "php": "abstract and array as break callable case catch class clone const continue declare default do echo else elseif empty extends false "
    "final finally fn for foreach function global if implements include instanceof interface isset list namespace new null or private protected "
    "public require return static switch throw trait true try unset use var while xor yield",
}
_KEYWORDS = {language: frozenset(words.split()) for language, words in _KEYWORDS.items()}
_LEXEME = re.compile(
    r"(?P<string>\w{0,2}[\"'`].*)|(?P<comment>#.*|//[^=].*|/\*.*)|(?P<number>\.?\d.*)|(?P<identifier>[^\W\d].*|[$@]+\w.*)"
    r"|(?P<separator>[()\[\]{},;:.])|(?P<operator>.+)",
    re.DOTALL,
)


def lexical_type(token: str, language: str = "python") -> str:
    """The lexical type of a token of code: one of `"keyword"`, `"identifier"`, `"separator"`, `"operator"`, `"number"`, `"string"`, `"comment"`.

    Args:
      token: as it stands in the code, without blanks around it.
      language: whose keywords count: "python", "ruby", "javascript", "java", "go" or "php".

    Returns:
      The type. Brackets, commas, semicolons, colons and dots are separators, all other signs operators.

    Raises:
      TypeError: token is not a string.
      ValueError: an empty token, an unknown language.

    >>> [lexical_type(token) for token in ("def", "parse_url", "(", "+=", "0x1f", "b'x'", "# a")]
    ['keyword', 'identifier', 'separator', 'operator', 'number', 'string', 'comment']
    """
    check.choice("language", language, tuple(_KEYWORDS))
    if not isinstance(token, str):
        raise TypeError(f"token must be a string, got {type(token).__name__}")
    if not token:
        raise ValueError("token must not be empty")
    return "keyword" if token in _KEYWORDS[language] else _LEXEME.fullmatch(token).lastgroup


def python_tokens(code: str) -> list[tuple[str, str]]:
    """The tokens of Python code with their lexical types, comments too, without line ends and indentation.

    Args:
      code: source code of the running Python. Of code that is none, the tokens up to where it ceases to be.

    Returns:
      Pairs of a token and its `lexical_type`, in their order.

    Raises:
      TypeError: code is not a string.

    >>> python_tokens("x = 1  # one")
    [('x', 'identifier'), ('=', 'operator'), ('1', 'number'), ('# one', 'comment')]
    """
    if not isinstance(code, str):
        raise TypeError(f"code must be a string, got {type(code).__name__}")
    found = []
    with contextlib.suppress(tokenize.TokenError, SyntaxError):
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            if token.string.strip():
                inside = "STRING_" in tokenize.tok_name[token.type]  # from Python 3.12 on a formatted string is several tokens
                found.append((token.string, "string" if inside else lexical_type(token.string)))
    return found
