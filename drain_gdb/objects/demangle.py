"""The names of C++ types and functions as programmers write them, from their mangled names.

The mangling is that of the Itanium C++ ABI, 5.1, but for expressions.  The text comes from a
process that may be anything: nothing in it makes this take long or go deep.
"""

from __future__ import annotations

import re
from typing import Callable, Dict, List, NamedTuple, Optional

TEXT_MAX, SAID_MAX, DEPTH_MAX = 4096, 1 << 13, 64
BUILTIN = {
    **{"v": "void", "w": "wchar_t", "b": "bool", "c": "char", "a": "signed char"},
    **{"h": "unsigned char", "s": "short", "t": "unsigned short", "i": "int"},
    **{"j": "unsigned int", "l": "long", "m": "unsigned long", "x": "long long"},
    **{"y": "unsigned long long", "n": "__int128", "o": "unsigned __int128", "f": "float"},
    **{"d": "double", "e": "long double", "g": "__float128", "z": "..."},
    **{"Dn": "decltype(nullptr)", "Di": "char32_t", "Ds": "char16_t", "Du": "char8_t"},
    **{"Da": "auto", "Dc": "decltype(auto)"},
}
SUFFIX = {"int": "", "unsigned int": "u", "long": "l", "unsigned long": "ul"}
SUFFIX.update({"long long": "ll", "unsigned long long": "ull"})
STANDARD = {"Sa": "std::allocator", "Sb": "std::basic_string", "Ss": "std::string"}
STANDARD.update({"Si": "std::istream", "So": "std::ostream", "Sd": "std::iostream"})
CODES = """nw na dl da aw ps ng ad de co pl mi ml dv rm an or eo aS pL mI mL dV rM aN oR eO ls rs lS
rS eq ne lt gt le ge ss nt aa oo pp mm cm pm pt cl ix"""
SIGNS = """new new[] delete delete[] co_await + - & * ~ + - * / % & | ^ = += -= *= /= %= &= |= ^= <<
>> <<= >>= == != < > <= >= <=> ! && || ++ -- , ->* -> () []"""
OPERATORS = dict(zip(CODES.split(), SIGNS.split()))
DEFAULT = re.compile(r"std::(allocator|char_traits|less|hash|equal_to|default_delete)<")
"""What stands in the last places of templates where nobody wrote anything."""


def demangled(name: str) -> Optional[str]:
    """A type (``7Session``) or a function or variable (``_ZN7Session4openEv``) in words.

    Of a function without the types of its arguments.  None where it is not understood.
    """
    if len(name) > TEXT_MAX or not name.isascii():
        return None
    reader = _Reader(name)
    try:
        said = reader.symbol() if reader.takes("_Z") else reader.whole_type()
    except (_Unknown, RecursionError):
        return None
    return said if reader.at_end() else None


def shortened(said: str) -> str:
    """A name without the arguments of templates that are what they are by default."""
    kept: List[str] = []
    at = 0
    for found in DEFAULT.finditer(said):
        if found.start() < at or said[: found.start()][-2:] != ", ":
            continue
        kept.append(said[at : found.start() - 2])
        at = _closed(said, found.end())
    text = "".join(kept) + said[at:]
    for name in ("std::__cxx11::basic_string<char>", "std::__1::basic_string<char>"):
        text = text.replace(name, "std::string")
    return text


def _closed(said: str, at: int) -> int:
    """The end of the arguments whose ``<`` stands before ``at``."""
    depth = 1
    while depth and at < len(said):
        depth += {"<": 1, ">": -1}.get(said[at], 0)
        at += 1
    return at


class _Unknown(Exception):
    """What is not understood."""


class _Type(NamedTuple):
    """A type as it stands left and right of a name.

    Attributes:
        bare: a function or an array, to which a pointer stands in brackets.

    """

    left: str
    right: str = ""
    bare: bool = False

    def __str__(self) -> str:
        return f"{self.left}{self.right}"

    def with_mark(self, mark: str) -> _Type:
        """A pointer to it, a reference, a constant one."""
        if self.bare:
            space = "" if self.left.endswith(" ") else " "
            return _Type(f"{self.left}{space}({mark}", f"){self.right}")
        return _Type(self.left + mark, self.right)


class _Reader:
    """Reads a mangled name from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._constant = False
        self._seen: List[_Type] = []
        self._types: Dict[str, Callable[[], _Type]] = {
            "F": self._function,
            "A": self._array,
            "M": self._member,
            "T": self._parameter,
        }

    def at_end(self) -> bool:
        """Whether all of it was read."""
        return self._at == len(self._text)

    def takes(self, start: str) -> bool:
        """Whether ``start`` comes next; it is read if so."""
        if self._text.startswith(start, self._at):
            self._at += len(start)
            return True
        return False

    def _next(self, count: int = 1) -> str:
        return self._text[self._at : self._at + count]

    def _need(self, start: str) -> None:
        if not self.takes(start):
            raise _Unknown

    def _match(self, pattern: str) -> str:
        found = re.compile(pattern).match(self._text, self._at)
        if found is None:
            raise _Unknown
        self._at = found.end()
        return found[0]

    def _keep(self, said: _Type) -> _Type:
        if len(said.left) + len(said.right) > SAID_MAX:
            raise _Unknown
        self._seen.append(said)
        return said

    def symbol(self) -> str:
        """A name; the types of a function's arguments are passed over."""
        said = self._name()
        self._at = len(self._text)
        return said

    def whole_type(self) -> str:
        """A type."""
        return str(self._type())

    def _type(self) -> _Type:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise _Unknown
        try:
            return self._any_type()
        finally:
            self._depth -= 1

    def _any_type(self) -> _Type:
        for length in (1, 2):
            if self._next(length) in BUILTIN:
                self._at += length
                return _Type(BUILTIN[self._text[self._at - length : self._at]])
        for start, mark in (("P", "*"), ("R", "&"), ("O", "&&")):
            if self.takes(start):
                return self._keep(self._type().with_mark(mark))
        if self.takes("Dp"):
            return self._keep(self._type())
        if self.takes("Do"):
            self._need("F")
            said = self._function()
            return self._keep(said._replace(right=f"{said.right} noexcept"))
        marks = self._match("r?V?K?")
        if marks:
            return self._keep(_qualified(self._type(), marks))
        read = self._types.get(self._next())
        if read is not None:
            self._at += 1
            return self._keep(read())
        if self._next() == "S" and self._next(2) != "St":
            whole = self._substitution()
            if self._next() != "I":
                return whole
            return self._keep(_Type(f"{whole}{self._template()}"))
        return self._keep(_Type(self._name()))

    def _function(self) -> _Type:
        self.takes("Y")
        result = self._type()
        said: List[str] = []
        while not self.takes("E"):
            if self.takes("RE"):
                return _Type(f"{result.left} ", f"({_listed(said)}) &{result.right}", True)
            if self.takes("OE"):
                return _Type(f"{result.left} ", f"({_listed(said)}) &&{result.right}", True)
            said.append(str(self._type()))
        return _Type(f"{result.left} ", f"({_listed(said)}){result.right}", True)

    def _array(self) -> _Type:
        count = self._match(r"\d*")
        self._need("_")
        inner = self._type()
        return _Type(inner.left, f" [{count}]{inner.right.lstrip()}", True)

    def _member(self) -> _Type:
        owner = str(self._type())
        inner = self._type()
        if inner.bare:
            return inner.with_mark(f"{owner}::*")
        return _Type(f"{inner.left} {owner}::*", inner.right)

    def _parameter(self) -> _Type:
        """One of a lambda of any types; of other functions these are not shown."""
        return _Type(f"auto:{self._number_before('_', 10) + 1}")

    def _number_before(self, end: str, base: int) -> int:
        """``_`` is the first, ``0_`` the second."""
        digits = self._match(r"[0-9A-Z]*")
        self._need(end)
        try:
            return int(digits, base) + 1 if digits else 0
        except ValueError:
            raise _Unknown from None

    def _substitution(self) -> _Type:
        if self._next(2) in STANDARD:
            said = STANDARD[self._next(2)]
            self._at += 2
            return _Type(said + self._tags())
        self._need("S")
        number = self._number_before("_", 36)
        if number >= len(self._seen):
            raise _Unknown
        return self._seen[number]

    def _name(self) -> str:
        """A name, nested or not, with its template arguments."""
        if self.takes("N"):
            return self._nested()
        if self.takes("Z"):
            return self._local()
        if self._next() == "S" and self._next(2) != "St":
            said = str(self._substitution())
            return said + self._template()
        said = "std::" if self.takes("St") else ""
        said += self._component("")
        if self._next() != "I":
            return said
        self._keep(_Type(said))
        return said + self._template()

    def _nested(self) -> str:
        marks = self._match("r?V?K?[RO]?")
        said = last = ""
        kept = False
        while not self.takes("E"):
            kept = True
            if self._next() == "I" and said:
                said += self._template()
            elif self.takes("St"):
                said, kept = "std", False
            elif self._next() == "S":
                if said:
                    raise _Unknown
                last = said = str(self._substitution())
                kept = False
            elif self._next() == "T" and not said:
                self._at += 1
                said = str(self._parameter())
            else:
                last = self._component(last)
                said = f"{said}::{last}" if said else last
            if kept:
                self._keep(_Type(said))
        if kept:
            self._seen.pop()
        if not said:
            raise _Unknown
        self._constant = "K" in marks
        return said

    def _component(self, owner: str) -> str:
        """One of the names between ``::``; ``owner`` is the one before it."""
        self.takes("L")
        if self._next().isdigit():
            length = int(self._match(r"\d{1,4}"))
            said = self._next(length)
            if len(said) != length:
                raise _Unknown
            self._at += length
            if said.startswith("_GLOBAL__N"):
                said = "(anonymous namespace)"
        elif self.takes("Ul"):
            said = self._lambda()
        elif self.takes("Ut"):
            said = f"{{unnamed type#{self._number_before('_', 10) + 1}}}"
        elif self._next() in "CD" and self._next(2)[1:].isdigit():
            said = f"{'~' if self._next() == 'D' else ''}{_last(owner)}"
            self._at += 2
        elif self.takes("cv"):
            said = f"operator {self._type()}"
        elif self._next(2) in OPERATORS:
            sign = OPERATORS[self._next(2)]
            said = f"operator{' ' if sign[0].isalpha() else ''}{sign}"
            self._at += 2
        else:
            raise _Unknown
        return said + self._tags()

    def _tags(self) -> str:
        said = ""
        while self.takes("B"):
            length = int(self._match(r"\d{1,4}"))
            said += f"[abi:{self._next(length)}]"
            self._at += length
        return said

    def _lambda(self) -> str:
        said = []
        while not self.takes("E"):
            said.append(str(self._type()))
        return f"{{lambda({_listed(said)})#{self._number_before('_', 10) + 1}}}"

    def _template(self) -> str:
        """The template arguments that come next, if any."""
        if not self.takes("I"):
            return ""
        return f"<{', '.join(self._packed())}>"

    def _packed(self) -> List[str]:
        said: List[str] = []
        while not self.takes("E"):
            if self.takes("J"):
                said += self._packed()
            else:
                said.append(self._literal() if self.takes("L") else str(self._type()))
            if sum(map(len, said)) > SAID_MAX:
                raise _Unknown
        return said

    def _literal(self) -> str:
        if self.takes("_Z"):
            said = self._name()
            self._need("E")
            return said
        kind = str(self._type())
        value = self._match(r"n?\d*")
        self._need("E")
        value = value.replace("n", "-")
        if kind == "bool":
            return "true" if value == "1" else "false"
        return value + SUFFIX[kind] if kind in SUFFIX else f"({kind}){value}"

    def _local(self) -> str:
        """A type within a function."""
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise _Unknown
        outer = self._encoding()
        self._need("E")
        said = "string literal" if self.takes("s") else self._name()
        self._match(r"(_\d|__\d+_)?")
        self._depth -= 1
        return f"{outer}::{said}"

    def _encoding(self) -> str:
        """A function, with the types of its arguments if it is no template's."""
        self._constant = False
        said = self._name()
        constant = " const" if self._constant else ""
        if self._next() in ("E", ""):
            return said
        if said.endswith(">"):
            # A template's says what it returns, and its arguments by those of the template.
            while self._next() not in ("E", ""):
                self._type()
            return f"{said}(...)"
        listed = []
        while self._next() not in ("E", ""):
            listed.append(str(self._type()))
        return f"{said}({_listed(listed)}){constant}"


def _qualified(inner: _Type, marks: str) -> _Type:
    words = "".join({"r": " restrict", "V": " volatile", "K": " const"}[m] for m in marks[::-1])
    if inner.bare:
        return inner._replace(right=inner.right + words)
    return inner._replace(left=inner.left + words)


def _listed(types: List[str]) -> str:
    return "" if types == ["void"] else ", ".join(types)


def _last(owner: str) -> str:
    return owner.partition("<")[0].rpartition("::")[2]
