"""Read what malloc_stats_print() printed: text or JSON, of jemalloc 5.0 and later.

It is found in the midst of other lines (a log, a prompt), as it was printed or as
redis-cli quotes it.  Text becomes the tree that the JSON form is; then both are read in
one way, so that what one form holds the other does.  Nothing of it is believed: numbers
are of 64 bits or refused, names are looked up and never shown.
"""

from __future__ import annotations

import json
import os
import re
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
)

from drain_gdb.errors import StatisticsError
from drain_gdb.jemalloc.statistics import (
    ArenaFigures,
    BinFigures,
    LargeFigures,
    Setting,
    Statistics,
)
from drain_gdb.layout.bins import LG_QUANTA
from drain_gdb.layout.versions import VERSION

BEGIN, END = "___ Begin jemalloc statistics ___", "--- End jemalloc statistics ---"
JSON_BEGIN = re.compile(r'\{\s*"jemalloc"\s*:')
QUOTED_BEGIN = re.compile(r'"(?:___ Begin jemalloc|\{(?:\\[nt]|\s)*\\"jemalloc\\")')
QUOTED = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b"}
MARKS = (BEGIN.encode(), END.encode(), b'"jemalloc"', b'\\"jemalloc\\"', b"Merged arenas stats:")
FILE_MAX = 256 << 20
LOOK = 4096
LIMIT = 1 << 64
INDEX_MAX = 1 << 12
"""More arenas or size classes than any jemalloc has (MALLOCX_ARENA_LIMIT)."""
PAGES, QUANTA = [1 << lg for lg in range(12, 23)], [1 << lg for lg in LG_QUANTA]
QUANTUM = 16
"""Of every build but those configured otherwise."""
MERGED = "merged"

Tree = Dict[str, Any]
Row = TypeVar("Row", BinFigures, LargeFigures)


def is_printed(path: str) -> bool:
    """Whether the file at ``path`` is text that holds such an output, or a part of one."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(LOOK)
            if b"\0" in head or os.path.getsize(path) > FILE_MAX:
                return False
            content = head + file.read()
    except OSError:
        return False
    return any(mark in content for mark in MARKS)


def read_printed(path: str) -> Statistics:
    """The statistics in the file at ``path``; of several outputs the last.

    Raises :class:`StatisticsError`, one line that says what is missing, and where.
    """
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        content = file.read(FILE_MAX)
    try:
        return parse(content)
    except StatisticsError as error:
        raise StatisticsError(f"{path}: {error.message}", error.hint) from None


def parse(content: str) -> Statistics:
    """The statistics in ``content``, as :func:`read_printed`."""
    content = _unquoted(content).replace("\r\n", "\n").replace("\r", "\n")
    begins = [match.start() for match in re.finditer(re.escape(BEGIN), content)]
    objects = [match.start() for match in JSON_BEGIN.finditer(content)]
    last = max([*begins, *objects], default=None)
    if last is None:
        raise StatisticsError(f"the beginning of the statistics is missing: no line {BEGIN!r}")
    remarks = []
    if len(begins) + len(objects) > 1:
        remarks.append(
            f"the file holds {len(begins) + len(objects)} outputs of malloc_stats_print(); this"
            f" is the last, in line {_line(content, last)}"
        )
    if last in objects:
        tree, length = _json_tree(content, last)
    else:
        tree, length = _text_tree(content, last)
    return _Reader(tree, length, remarks).statistics()


def _line(content: str, at: int) -> int:
    return content.count("\n", 0, at) + 1


def _unquoted(content: str) -> str:
    """``content`` with an output that redis-cli or a log has quoted as it was printed."""
    begin = QUOTED_BEGIN.search(content)
    if begin is None:
        return content
    match = QUOTED.match(content, begin.start())
    if match is None:
        raise StatisticsError(
            f"the statistics, quoted in line {_line(content, begin.start())}, are cut off:"
            " their closing quote is missing"
        )
    text = re.sub(r"\\(.)", lambda m: ESCAPES.get(m[1], m[1]), match[1])
    return f"{content[: match.start()]}\n{text}\n{content[match.end() :]}"


def _json_tree(content: str, start: int) -> Tuple[Tree, int]:
    # 5.0 leaves a comma behind the last member where a section is left out.
    tidy = re.sub(r",(\s*[}\]])", r" \1", content[start:])
    try:
        found, end = json.JSONDecoder(parse_int=_integer).raw_decode(tidy)
    except json.JSONDecodeError as error:
        at = start + error.pos
        where = ".".join(_open_keys(tidy[: error.pos]))
        raise StatisticsError(
            f"the statistics are cut off or damaged in line {_line(content, at)}, within {where}"
        ) from None
    except RecursionError:
        raise StatisticsError("the statistics are nested too deeply") from None
    tree = found["jemalloc"]
    if not isinstance(tree, dict):
        raise StatisticsError("the statistics hold no object 'jemalloc'")
    return tree, end


def _integer(digits: str) -> int:
    if len(digits) > len(str(LIMIT)):
        raise StatisticsError(f"a number of {len(digits)} digits is no statistic")
    return int(digits)


def _open_keys(text: str) -> Iterator[str]:
    """The keys of the objects and lists that ``text`` leaves open, outermost first."""
    keys: List[str] = []
    last = ""
    for match in re.finditer(r'"((?:[^"\\]|\\.)*)"(\s*:)?|[{\[]|[}\]]', text):
        if match[2]:
            last = match[1]
        elif match[0] in "{[":
            keys.append(last)
            last = ""
        elif match[0] in "}]" and keys:
            keys.pop()
    return (key for key in keys if re.fullmatch(r"[\w.]+", key))


ROW = re.compile(r"[\d. ]*(?:race[\d. ]*)?")
HEADER = re.compile(r"(bins|large|extents):\s+size\s")
SECTION = re.compile(r"(Merged) arenas stats:|(Destroyed) arenas stats:|arenas\[(\d+)\]:")
OPTION = re.compile(r"opt\.(\w+): (\S+)(?: \(([\w.]+): (\S+)\))?")
DECAY = re.compile(r"(dirty|muzzy):\s+(N/A|-?\d+)\s+(\d+)\s")
AMOUNTS = re.compile(r"(small|large):\s+(\d+)\s")
PLAIN = re.compile(r"(\w[\w -]*):\s+(\d+)")
GENERAL = {
    "Arenas": "narenas",
    "Quantum size": "quantum",
    "Page size": "page",
}
OF_ARENA = {"assigned threads": "nthreads", "tcache": "tcache_bytes", "active": "active"}


class _Table(NamedTuple):
    """A table that is being read: its name, its columns, where the cell of each ends."""

    name: str
    columns: Sequence[str]
    ends: Sequence[int]


def _text_tree(content: str, start: int) -> Tuple[Tree, int]:
    """The tree of the text form; size classes stand under their index."""
    indent = start - (content.rfind("\n", 0, start) + 1)
    stop = content.find(END, start)
    form = _Text()
    # A log may put as much before each line; a prompt does so before the first alone.
    prefix = indent if stop - (content.rfind("\n", 0, max(stop, 0)) + 1) == indent else 0
    # Of an output that is cut off the last line may be half a line.
    for line in content[start : None if stop < 0 else stop].split("\n")[1:-1]:
        form.take(line[prefix:])
    if stop < 0:
        last = _line(content, len(content.rstrip()))
        raise StatisticsError(
            f"the statistics are cut off in line {last}, within {form.where}; their last line,"
            f" {END!r}, is missing"
        )
    return form.tree, stop + len(END) - start


class _Text:
    """The text form, taken line by line; what is no line of it is passed over."""

    def __init__(self) -> None:
        self.tree: Tree = {"opt": {}, "current": {}, "arenas": {}, "stats": {}}
        self._sections: Dict[str, Tree] = self.tree.setdefault("stats.arenas", {})
        self._section: Optional[Tree] = None
        self._table: Optional[_Table] = None
        self._where = ["the settings"]

    @property
    def where(self) -> str:
        """The section that the last line was of, in words."""
        return ", ".join(self._where)

    def take(self, line: str) -> None:
        """The next line."""
        section, header = SECTION.match(line), HEADER.match(line)
        if section is not None:
            name = section[1] or section[2] or section[3]
            self._section = self._sections.setdefault(name.lower(), {})
            self._table = None
            self._where = [line.strip().rstrip(":")]
        elif header is not None and self._section is not None:
            self._begin(header[1], line)
        elif "size  ind" in line or line.startswith("HPA shard stats"):
            self._table = None
        elif self._table is not None and ROW.fullmatch(line) and line.strip():
            self._row(self._table, line)
        elif self._section is None:
            self._general(line)
        else:
            self._of_section(self._section, line)

    def _begin(self, name: str, line: str) -> None:
        assert self._section is not None
        columns = list(re.finditer(r"\S+", line[len(name) + 1 :]))
        ends = [len(name) + 1 + column.end() for column in columns]
        self._table = _Table(name, [column[0] for column in columns], ends)
        self._section.setdefault("lextents" if name == "large" else name, {})
        self._where = [*self._where[:1], f"the table {name!r}"]

    def _row(self, table: _Table, line: str) -> None:
        """A row; numbers that fill their columns leave no room between two."""
        assert self._section is not None
        cells = line.split()
        if len(cells) != len(table.columns):
            cells = [line[a:b].strip() for a, b in zip([0, *table.ends], table.ends)]
            if len(line.rstrip()) != table.ends[-1]:
                cells = []
        row = dict(zip(table.columns, cells))
        if not row.get("ind", "").isdecimal():
            raise StatisticsError(f"a row of {self.where} does not fit its columns: {line[:60]!r}")
        rows = self._section["lextents" if table.name == "large" else table.name]
        rows[_integer(row["ind"])] = {
            name: _integer(cell) for name, cell in row.items() if cell.isdecimal()
        }

    def _general(self, line: str) -> None:
        option, plain = OPTION.fullmatch(line.strip()), PLAIN.fullmatch(line.strip())
        if line.startswith("Version: "):
            self.tree["version"] = line[len("Version: ") :].strip().strip('"')
        elif option is not None:
            self.tree["opt"][option[1]] = option[2].strip('"')
            if option[4] is not None:
                self.tree["current"][option[1]] = option[4]
        elif line.startswith("Allocated: "):
            self._where = ["the totals"]
            for name, number in re.findall(r"(\w+): (\d+)", line):
                self.tree["stats"][name.lower()] = _integer(number)
        elif line.startswith("Background threads: "):
            (number,) = re.findall(r"\d+", line)[:1] or ["0"]
            self.tree["stats"]["background_thread"] = {"num_threads": _integer(number)}
        elif plain is not None and plain[1] in GENERAL:
            self.tree["arenas"][GENERAL[plain[1]]] = _integer(plain[2])

    def _of_section(self, section: Tree, line: str) -> None:
        line = line.strip()
        decay, amounts, plain = DECAY.match(line), AMOUNTS.match(line), PLAIN.fullmatch(line)
        if decay is not None:
            section[f"{decay[1]}_decay_ms"] = -1 if decay[2] == "N/A" else _integer(decay[2])
            section[f"p{decay[1]}"] = _integer(decay[3])
        elif amounts is not None:
            section[amounts[1]] = {"allocated": _integer(amounts[2])}
        elif plain is not None:
            section.setdefault(OF_ARENA.get(plain[1], plain[1]), _integer(plain[2]))


class _Reader:
    """From the tree to the record."""

    def __init__(self, tree: Tree, length: int, remarks: Sequence[str]) -> None:
        self._tree = tree
        self._length = length
        self._remarks = tuple(remarks)
        self._general = _inner(tree, "arenas")
        self._sections = _inner(tree, "stats.arenas")
        # Where they are: what is the same for every bin and large class, under its index.
        self._bins = _rows(self._general, "bin") or {}
        self._lextents = _rows(self._general, "lextent") or {}
        self._page = _number(self._general, "page") or self._guess_page()
        self._quantum = _number(self._general, "quantum") or QUANTUM
        if self._page not in PAGES or self._quantum not in QUANTA:
            raise StatisticsError(
                f"no jemalloc has pages of {self._page} bytes and a quantum of {self._quantum}"
            )

    def statistics(self) -> Statistics:
        """The record; :class:`StatisticsError` where what is needed is not there."""
        totals = _inner(self._tree, "stats")
        said = self._tree.get("version")
        indices = sorted(int(n) for n in self._sections if re.fullmatch("[0-9]{1,4}", n))
        merged = self._sections.get(MERGED)
        found = Statistics(
            version=said if isinstance(said, str) and _is_version(said) else None,
            length=self._length,
            settings=_settings(_inner(self._tree, "opt")),
            current=_settings({**_inner(self._tree, "current"), **self._mutable()}),
            page=self._page,
            quantum=self._quantum,
            narenas=_number(self._general, "narenas"),
            allocated=_number(totals, "allocated"),
            active=_number(totals, "active"),
            metadata=_number(totals, "metadata"),
            resident=_number(totals, "resident"),
            mapped=_number(totals, "mapped"),
            retained=_number(totals, "retained"),
            background_threads=_number(_inner(totals, "background_thread"), "num_threads"),
            merged=None if merged is None else self._arena(_inner(self._sections, MERGED)),
            arenas={i: self._arena(_inner(self._sections, str(i))) for i in indices},
            remarks=self._remarks,
        )
        if found.merged is None and not found.arenas:
            raise StatisticsError(
                "the statistics hold no arenas",
                "print them without the options m and a, with statistics on (config.stats)",
            )
        return found

    def _mutable(self) -> Tree:
        """What the JSON form says of settings that can change, elsewhere than text does."""
        decay = {name: self._general.get(name) for name in ("dirty_decay_ms", "muzzy_decay_ms")}
        profiling = _inner(self._tree, "prof")
        found = {
            **decay,
            "prof_active": profiling.get("active"),
            "lg_prof_sample": profiling.get("lg_sample"),
        }
        return {name: value for name, value in found.items() if value is not None}

    def _guess_page(self) -> int:
        """From the rows of the text form, which tell slabs in pages, regions fill them."""
        sizes: List[int] = [
            -(-row["size"] * row["regs"] // row["pgs"])
            for section in self._sections.values()
            for row in (_rows(section, "bins") or {}).values()
            if row.get("pgs") and "size" in row and "regs" in row
        ]
        if not sizes:
            raise StatisticsError(
                "the statistics do not say the page size", "print them without the option g"
            )
        return 1 << (max(sizes) - 1).bit_length()

    def _arena(self, section: Tree) -> ArenaFigures:
        active = _number(section, "active")
        pages = None if active is None else active // self._page
        tcache = _number(section, "tcache_bytes")
        return ArenaFigures(
            threads=_number(section, "nthreads"),
            dirty_decay_ms=_number(section, "dirty_decay_ms", least=-1),
            muzzy_decay_ms=_number(section, "muzzy_decay_ms", least=-1),
            active_pages=_number(section, "pactive") if pages is None else pages,
            dirty_pages=_number(section, "pdirty"),
            muzzy_pages=_number(section, "pmuzzy"),
            small=_number(_inner(section, "small"), "allocated"),
            large=_number(_inner(section, "large"), "allocated"),
            mapped=_number(section, "mapped"),
            retained=_number(section, "retained"),
            pinned=_number(section, "pinned"),
            base=_number(section, "base"),
            internal=_number(section, "internal"),
            tcache=_number(section, "tcache") if tcache is None else tcache,
            resident=_number(section, "resident"),
            bins=self._used(_rows(section, "bins"), self._bin),
            extents=self._used(_rows(section, "lextents"), self._large),
        )

    def _used(
        self, rows: Optional[Dict[int, Tree]], make: Callable[[int, Tree], Optional[Row]]
    ) -> Optional[Tuple[Row, ...]]:
        if rows is None:
            return None
        made = (make(index, row) for index, row in sorted(rows.items()))
        return tuple(row for row in made if row is not None)

    def _bin(self, index: int, row: Tree) -> Optional[BinFigures]:
        static = self._bins.get(index, {})
        pages = _number(row, "pgs")
        slab_size = _number(static, "slab_size") if pages is None else pages * self._page
        size = _number({**static, **row}, "size")
        nregs = _number(static, "nregs") if pages is None else _number(row, "regs")
        curregs, curslabs = _number(row, "curregs"), _number(row, "curslabs")
        nmalloc = _number(row, "nmalloc") or 0
        if not size or not nregs or not slab_size or curregs is None or curslabs is None:
            raise StatisticsError(
                f"size class {index} lacks its size, its slabs or its regions",
                "print them without the option g",
            )
        if not curslabs and not nmalloc:
            return None
        return BinFigures(
            index=index,
            size=size,
            slab_size=slab_size,
            nregs=nregs,
            curregs=curregs,
            curslabs=curslabs,
            nmalloc=nmalloc,
            ndalloc=_number(row, "ndalloc") or 0,
            nrequests=_number(row, "nrequests") or 0,
            nslabs=_number(row, "nslabs"),
        )

    def _large(self, index: int, row: Tree) -> Optional[LargeFigures]:
        size = _number({**self._lextents.get(index, {}), **row}, "size")
        count = _number(row, "curlextents")
        if not size or count is None:
            raise StatisticsError(
                f"large size class {index} lacks its size or its count",
                "print them without the option g",
            )
        # JSON lists large classes from 0 on, text numbers them behind the small ones.
        number = _number(row, "ind")
        szind = index + len(self._bins) if number is None else number
        return LargeFigures(szind, size, count) if count else None


def _is_version(text: str) -> bool:
    return re.fullmatch(VERSION, text.encode("utf-8", "replace")) is not None


def _number(tree: Tree, key: str, least: int = 0) -> Optional[int]:
    """The number ``key``, of 64 bits; None where there is none."""
    value = tree.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < LIMIT:
        raise StatisticsError(f"{key!r} of the statistics is no number of 64 bits")
    return value


def _inner(tree: Tree, key: str) -> Tree:
    """The object ``key``; empty where there is none."""
    value = tree.get(key, {})
    if not isinstance(value, dict):
        raise StatisticsError(f"{key!r} of the statistics is no object")
    return value


def _rows(tree: Tree, key: str) -> Optional[Dict[int, Tree]]:
    """The rows ``key`` by index, as a list or a table has them; None where there are none."""
    value = tree.get(key)
    if value is None:
        return None
    rows: Dict[int, Tree] = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(rows, dict) or len(rows) > INDEX_MAX:
        raise StatisticsError(f"{key!r} of the statistics is no list of size classes")
    if not all(isinstance(row, dict) for row in rows.values()):
        raise StatisticsError(f"{key!r} of the statistics holds something else than size classes")
    return rows


def _settings(tree: Tree) -> Dict[str, Setting]:
    """Settings by name."""
    return {name: _setting(v) for name, v in tree.items() if isinstance(v, (str, int))}


def _setting(value: Setting) -> Setting:
    """A word of the text form as JSON would have it."""
    if value in ("true", "false"):
        return value == "true"
    return int(value) if re.fullmatch(r"-?\d{1,20}", str(value)) else value
