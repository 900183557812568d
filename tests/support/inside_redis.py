"""Lists the structs of a Redis by its own debug information; runs in gdb.

``gdb -batch -nx -x inside_redis.py PROGRAM CORE`` prints a line each: address, what it is.
Walks from ``server.db`` on; nothing of the package is used.
"""

import struct

import gdb

HEADS = (1, 3, 5, 9, 17)
TYPES = ("string", "list", "set", "zset", "hash", "module", "stream")
ENCODINGS = {0: "raw", 1: "int", 2: "hashtable", 5: "ziplist", 6: "intset", 7: "skiplist"}
ENCODINGS.update({8: "embstr", 9: "quicklist", 10: "stream", 11: "listpack", 12: "listpackex"})
memory = gdb.selected_inferior().read_memory
seen = {}
layouts = {}


def tell(address, what):
    new = address not in seen
    seen.setdefault(address, what)
    return new


def u8(address):
    return memory(address, 1).tobytes()[0]


def word(address):
    return struct.unpack("<Q", memory(address, 8).tobytes())[0]


class Layout:
    """Where the members of a struct lie."""

    def __init__(self, name):
        found = gdb.lookup_type(name).strip_typedefs()
        self.size = found.sizeof
        self.at = {field.name: field.bitpos // 8 for field in found.fields()}
        self.type = found


def of(name):
    if name not in layouts:
        layouts[name] = Layout(name)
    return layouts[name]


def known(name):
    try:
        return gdb.lookup_type(name) is not None
    except gdb.error:
        return False


def member(address, name, field):
    return word(address + of(name).at[field])


def bits(address, name, field):
    return int(gdb.Value(address).cast(of(name).type.pointer())[field])


def has(name, field):
    return field in of(name).at


def string(text):
    tell(text - HEADS[u8(text - 1) & 7], "sds")


def object_at(address):
    number = u8(address)
    kind, encoding = TYPES[number & 15], ENCODINGS[number >> 4]
    tell(address, f"{kind} object, {encoding}")
    inside = member(address, OBJECT, "ptr")
    if kind == "string":
        if encoding == "raw":
            string(inside)
    elif encoding == "hashtable":
        table(inside, FIELD if kind == "hash" else string, string if kind == "hash" else pass_over)
    elif encoding == "skiplist":
        zset(inside)
    elif encoding == "quicklist":
        quicklist(inside)
    elif encoding == "stream":
        stream(inside)
    elif encoding == "listpackex":
        tell(inside, "listpackEx")
        tell(member(inside, "listpackEx", "lp"), "listpack")
    else:
        tell(inside, encoding)


def zset(address):
    tell(address, "zset")
    table(word(address), pass_over, pass_over)
    skiplist = member(address, "zset", "zsl")
    tell(skiplist, "zskiplist")
    node = member(skiplist, "zskiplist", "header")
    tell(node, "zskiplist header")
    node = word(node + 24)
    while node:
        tell(node, "zskiplistNode")
        string(word(node))
        node = word(node + 24)


def pass_over(_):
    pass


def quicklist(address):
    tell(address, "quicklist")
    node = member(address, "quicklist", "head")
    entry = "entry" if has("quicklistNode", "entry") else "zl"
    while node:
        tell(node, "quicklistNode")
        inside = member(node, "quicklistNode", entry)
        if bits(node, "quicklistNode", "encoding") == 2:
            tell(inside, "compressed listpack")
        elif bits(node, "quicklistNode", "container") == 1:
            tell(inside, "list item")
        else:
            tell(inside, "listpack" if entry == "entry" else "ziplist")
        node = member(node, "quicklistNode", "next")


def stream(address):
    tell(address, "stream")
    for value in rax(member(address, "stream", "rax")):
        tell(value, "listpack")
    groups = member(address, "stream", "cgroups")
    for group in rax(groups) if groups else ():
        tell(group, "streamCG")
        for pending in rax(member(group, "streamCG", "pel")):
            tell(pending, "streamNACK")
        for consumer in rax(member(group, "streamCG", "consumers")):
            tell(consumer, "streamConsumer")
            string(member(consumer, "streamConsumer", "name"))
            list(rax(member(consumer, "streamConsumer", "pel")))


def rax(address):
    tell(address, "rax")
    left = [member(address, "rax", "head")]
    while left:
        node = left.pop()
        tell(node, "raxNode")
        size = bits(node, "raxNode", "size")
        children = 1 if bits(node, "raxNode", "iscompr") else size
        at = node + 4 + size + (-(4 + size) % 8)
        left += [word(at + 8 * number) for number in range(children)]
        if bits(node, "raxNode", "iskey") and not bits(node, "raxNode", "isnull"):
            yield word(at + 8 * children)


def table(address, key, value):
    if known("struct hashtable"):
        buckets(address, key)
        return
    tell(address, "dict")
    if has("dict", "ht"):
        tables = [(word(address + 16 + 32 * n), word(address + 24 + 32 * n)) for n in (0, 1)]
    else:
        at = of("dict").at
        powers = memory(address + at["ht_size_exp"], 2).tobytes()
        tables = [(word(address + at["ht_table"] + 8 * n), 1 << powers[n]) for n in (0, 1)]
    for place, slots in tables:
        if place:
            tell(place, "hash table")
            data = memory(place, 8 * slots).tobytes()
            for (entry,) in struct.iter_unpack("<Q", data):
                chain(entry, key, value)


def chain(entry, key, value):
    """By the tags of dict.c of 8.2; before there are none."""
    while entry:
        tag = entry & 7
        if tag & 1 or tag == 2:
            key(entry if tag & 1 else entry - tag)
            return
        entry -= tag
        key(word(entry))
        if tag:
            tell(entry, "dictEntry without value")
            entry = word(entry + 8)
        else:
            tell(entry, "dictEntry")
            if value is not pass_over:
                inside = word(entry + 8)
                if inside:
                    value(inside)
            entry = word(entry + 16)


def buckets(address, key):
    tell(address, "hashtable")
    at = of("hashtable").at
    powers = memory(address + at["bucket_exp"], 2).tobytes()
    for number in (0, 1):
        place = word(address + at["tables"] + 8 * number)
        if place:
            tell(place, "buckets of a hashtable")
            for n in range(1 << powers[number]):
                bucket(place + 64 * n, key)


def bucket(place, key):
    while place:
        first = u8(place)
        chained = first & 1
        for number in range(7 - chained):
            if first >> 1 + number & 1:
                key(word(place + 8 + 8 * number))
        place = word(place + 56) if chained else 0
        if place:
            tell(place, "buckets of a hashtable")


def field(text):
    """A field of a hash from 7.4 on: its header says more than that of other strings."""
    info = u8(text - 1)
    kind, expires = info & 3, info & 4
    start = text - (1, 3, 3, 9)[kind] - (18 if expires else 0)
    tell(start, "hash field, expiring" if expires else "sds")


def hash_entry(text):
    """A field of a hash in Valkey 8.1: its value is behind it, or a pointer to it before."""
    flags = u8(text - 1)
    start = text - HEADS[flags & 7]
    if flags & 7 and flags & 8:
        start -= 8
        string(word(start))
    tell(start, "hash entry")


def store(address, key, value):
    """The dicts of the keys, or of the expiries, of a database."""
    if not known("struct _kvstore"):
        table(address, key, value)
        return
    tell(address, "kvstore")
    of_tables = has("struct _kvstore", "hashtables")
    names = ("hashtables", "num_hashtables") if of_tables else ("dicts", "num_dicts")
    place = member(address, "struct _kvstore", names[0])
    for number in range(bits(address, "struct _kvstore", names[1])):
        each = word(place + 8 * number)
        if each:
            table(each, key, value)


def key_of(address):
    """A key is a string of its own, or in its object."""
    if address & 1:
        string(address)
    else:
        object_at(address)


OBJECT = "struct serverObject" if known("struct serverObject") else "struct redisObject"
FIELD = hash_entry if known("struct hashtable") else field if known("struct mstrhdr5") else string
server = gdb.parse_and_eval("server")
first = server["db"].dereference()
names = ("keys", "expires") if known("struct _kvstore") else ("dict", "expires")
for number in range(int(server["dbnum"])):
    database = server["db"][number]
    store(int(database[names[0]]), key_of, object_at)
    store(int(database[names[1]]), pass_over, pass_over)
tell(int(first.address), "databases")
for address, what in seen.items():
    print("told", hex(address), what)
