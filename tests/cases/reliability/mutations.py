"""Mutations of the files of a run: what bit rot, a full disk, an editor or a careless script makes of them."""

import json
import re

DEEP = b"[" * 100_000
WHOLE = [b"", b"[]", b"{}", b"null", b"1", b'"text"', b"\xff\xfe\x00", b"{" * 9, DEEP, b"\n\n", b"9" * 5_000]
VALUES: list[object] = [None, True, -1, 1e300, 10**300, "text", "", [], {}, [[]], {"a": 1}, float("nan"), float("inf")]


def flip_bit(data, draw):
    """One bit of one byte."""
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]


def flip_digit(data, draw):
    """Another digit in place of one."""
    found = [match.start() for match in re.finditer(rb"\d", data)]
    at = draw.choice(found)
    return data[:at] + str((int(data[at : at + 1]) + draw.randint(1, 9)) % 10).encode() + data[at + 1 :]


def truncate(data, draw):
    """The beginning alone."""
    return data[: draw.randrange(len(data))]


def append(data, draw):
    """Something behind the end."""
    return data + draw.choice([b"\0", b"x", b"{}", b"\n[]\n", b"1,2\n", DEEP, data])


def zero(data, draw):
    """A block of zeros, as a lost sector is."""
    at = draw.randrange(len(data))
    return data[:at] + b"\0" * len(data[at : at + 64]) + data[at + 64 :]


def replace(data, draw):
    """Something else in place of all."""
    return draw.choice(WHOLE)


def encode(data, draw):
    """Another encoding, a byte order mark, an empty first line."""
    text = data.decode()
    return draw.choice([b"\xef\xbb\xbf" + data, text.encode("utf-16"), b"\n" + data])


def _lines(change):
    def changed(data, draw):
        lines = data.splitlines(keepends=True)
        change(lines, draw.randrange(len(lines)), draw.randrange(len(lines)))
        return b"".join(lines)

    changed.__name__ = change.__name__
    return changed


@_lines
def duplicate_line(lines, at, to):
    """A line twice."""
    lines.insert(to, lines[at])


@_lines
def swap_lines(lines, at, to):
    """Two lines in each other's place."""
    lines[at], lines[to] = lines[to], lines[at]


@_lines
def delete_line(lines, at, to):
    """A line less."""
    del lines[at]


def _objects(value):
    """All objects within a value."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects(inner)


def _json(change):
    """A change of one entry of a JSON file, or of one line of a file of JSON lines."""

    def changed(data, draw):
        lines = [data] if data.startswith(b"{\n") else data.splitlines(keepends=True)
        at = draw.randrange(len(lines))
        record = json.loads(lines[at])
        found = [one for one in _objects(record) if one]
        one = draw.choice([found[0], draw.choice(found)])  # the entries at the top matter most
        change(one, draw.choice(list(one)), draw)
        text = json.dumps(record, indent=1 if lines[at].startswith(b"{\n") else None) + "\n"
        lines[at] = text.replace('"DEEP"', DEEP.decode()).replace('"HUGE"', "9" * 5_000).encode()
        return b"".join(lines)

    changed.__name__ = change.__name__
    return changed


@_json
def delete_key(record, name, draw):
    """An entry less."""
    del record[name]


@_json
def rename_key(record, name, draw):
    """An entry under another name."""
    record[f"{name}_"] = record.pop(name)


@_json
def change_type(record, name, draw):
    """A value of another type."""
    record[name] = draw.choice(VALUES)


@_json
def nest(record, name, draw):
    """A value of a hundred thousand levels."""
    record[name] = "DEEP"


@_json
def enlarge(record, name, draw):
    """A number of 5,000 digits."""
    record[name] = "HUGE"


def repeat_key(data, draw):
    """An entry twice, with another value."""
    return re.sub(rb'("\w+"): ?', rb"\1: 7, \1: ", data, count=1)


def make_folder(path, draw):
    """A folder in place of a file."""
    path.unlink()
    path.mkdir()


BYTES = (flip_bit, truncate, append, zero, replace)
TEXT = (flip_digit, duplicate_line, swap_lines, delete_line, encode)
JSON = (delete_key, delete_key, rename_key, change_type, change_type, nest, enlarge, repeat_key)
KINDS = {".csv": TEXT, ".json": (*TEXT, *JSON, *JSON), ".jsonl": (*TEXT, *JSON, *JSON)}


def mutate(path, draw):
    """Change a file at random; returns the name of the change."""
    change = draw.choice([*BYTES, *KINDS.get(path.suffix, BYTES), make_folder])
    if change is make_folder:
        make_folder(path, draw)
    else:
        path.write_bytes(change(path.read_bytes(), draw))
    return change.__name__
