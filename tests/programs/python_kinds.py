"""Objects of many kinds, which it lists itself in a file: what, address, name, by tabs.

Beside what it made itself, all that the garbage collector knows, its modules, their classes
and variables; and by the layout of lists and dicts where these keep what they hold.
"""

import array
import collections
import ctypes
import decimal
import gc
import sys
import types
from pathlib import Path


class Session:
    def __init__(self, number):
        self.number = number
        self.name = f"session {number} of somebody"
        self.tags = [number, number + 1, str(number)]


class Slotted:
    __slots__ = ("left", "right")

    def __init__(self, number):
        self.left = float(number)
        self.right = number << 70


class Weak:
    __slots__ = ("__weakref__", "number")

    def __init__(self, number):
        self.number = number


class Named(dict):
    pass


class Listed(list):
    __slots__ = ()


class Written(str):
    pass


class Meta(type):
    pass


class Made(metaclass=Meta):
    def __init__(self, number):
        del number


class Failure(Exception):
    pass


class Bare:
    def __new__(cls, number):
        del number
        return object()


Point = collections.namedtuple("Point", "x y")
KINDS = [
    *(Session, Slotted, Weak, Made, Failure, Bare, decimal.Decimal, Written),
    lambda n: {f"key {n}": n, "other": [n]},
    lambda n: {n: n, n + 1: (n,)},
    lambda n: [n, float(n), Session, int, type],
    lambda n: [Session, int],
    lambda n: [n, Session, n, Session, n, Session],
    lambda n: (n, str(n)),
    lambda n: {n, n + 1, n + 2, n + 3, n + 4, n + 5},
    lambda n: frozenset((n, "x")),
    lambda n: f"a text {n}",
    lambda n: f"ein Wörtchen {n}",
    lambda n: f"имя {n}" * 20,
    lambda n: b"bytes %d" % n,
    lambda n: bytearray(b"%d" % n) * 30,
    lambda n: n / 7,
    lambda n: complex(n, 1),
    lambda n: n << 200,
    lambda n: collections.deque([n] * 100),
    lambda n: collections.OrderedDict(a=n),
    lambda n: collections.defaultdict(list, b=[n]),
    lambda n: Point(n, n),
    lambda n: Named(a=n),
    lambda n: Listed([n]),
    lambda n: array.array("d", [n] * 20),
    lambda n: types.SimpleNamespace(n=n),
    lambda n: lambda: n,
    lambda n: (each for each in [n]),
    lambda n: iter([n]),
    lambda n: range(n, n + 5000),
    lambda n: slice(n, None),
]
ITEMS, TABLE, BYTES = 24, 32, 32
EVERYTHING = []


def word(each, offset):
    return ctypes.c_void_p.from_address(id(each) + offset).value


def parts(each):
    if type(each) is list and each:
        yield "items of Python list", word(each, ITEMS)
    if type(each) is dict and each:
        yield "table of Python dict", word(each, TABLE)
    if type(each) is bytearray:
        yield "bytes of Python bytearray", word(each, BYTES)


def main(path, number):
    dropped = []
    for each in range(number):
        for make in KINDS:
            EVERYTHING.append(make(each))
            dropped.append(make(each))
    del dropped
    gc.collect()
    lines = []

    def tell(what, address, name):
        lines.append(f"{what}\t{address}\t{name}\n")

    for each in EVERYTHING:
        tell("made", id(each), type(each).__name__)
        for name, address in parts(each):
            tell("part", address, name)
    known = gc.get_objects()
    for each in known:
        if each is not known and type(each) is not types.FrameType:
            tell("known", id(each), type(each).__name__)
    for name, module in list(sys.modules.items()):
        if isinstance(module, types.ModuleType):
            tell("root", id(module), f"module {name}")
    for made in (Session, Named, Listed):
        tell("root", id(made), f"class {made.__name__}")
    for name in ("EVERYTHING", "KINDS"):
        tell("root", id(globals()[name]), f"module __main__: {name}")
    Path(path).write_text("".join(lines), encoding="utf-8")
    lines.clear()
    del known, each
    print("ready", flush=True)
    sys.stdin.readline()
    EVERYTHING.clear()
    gc.collect()
    print("dropped", flush=True)
    sys.stdin.read()


main(sys.argv[1], int(sys.argv[2]))
