"""Pickles of real objects, and what they hold by Python's own account.

In: KIND SEED COUNT. Out: one JSON line each: the pickle in hex, and the object told in a form of its own (`tell`).
Nothing here is read back from the pickle: the account comes from the objects.
"""

import array
import collections
import copyreg
import dataclasses
import enum
import io
import json
import pickle
import random
import sys
import uuid

import msgspec
import numpy


@dataclasses.dataclass
class Plain:
    rid: str
    tokens: list
    more: object = None


@dataclasses.dataclass(slots=True)
class Slotted:
    rid: str
    tokens: list


@dataclasses.dataclass(slots=True, frozen=True)
class Frozen:
    rid: str
    tokens: tuple


class Struct(msgspec.Struct, kw_only=True):
    rids: list
    finished: list
    counts: array.array
    inner: object = None


class Tagged(msgspec.Struct, tag=True, array_like=True):
    rid: str
    input_ids: list
    stream: bool = False


class Named:
    """Has arguments by name."""

    def __init__(self, *, a, b):
        self.a, self.b = a, b

    def __new__(cls, *, a, b):
        return object.__new__(cls)

    def __getnewargs_ex__(self):
        return ((), {"a": self.a, "b": self.b})

    def __getstate__(self):
        return None


class Colour(enum.Enum):
    RED = 3


class Words(list):
    pass


class Table(dict):
    pass


def name_of(what):
    return f"{what.__module__}.{what.__qualname__}"


def tell(value, depth=0):
    """The value as JSON; of what contains itself the first six rounds."""
    if depth > 12:
        return {"t": "deep"}
    below = lambda item: tell(item, depth + 1)
    kind = type(value)
    if value is None:
        return {"t": "none"}
    if kind is bool:
        return {"t": "bool", "v": value}
    if kind is int:
        return {"t": "int", "v": str(value)}
    if kind is float:
        return {"t": "float", "v": value.hex()}
    if kind is str:
        return {"t": "str", "v": value}
    if kind in (bytes, bytearray):
        return {"t": "bytes", "v": value.hex()}
    if kind in (list, tuple):
        return {"t": kind.__name__, "v": [below(item) for item in value]}
    if kind in (set, frozenset):
        return {"t": "set", "v": sorted((below(item) for item in value), key=json.dumps)}
    if kind is dict:
        return {"t": "dict", "v": [[below(key), below(item)] for key, item in value.items()]}
    if isinstance(value, type):
        return {"t": "global", "v": name_of(value)}
    if kind is Frozen:
        # Its class pickles the bare values in order.
        return {"t": "states", "class": name_of(kind), "v": [below(value.rid), below(value.tokens)]}
    if dataclasses.is_dataclass(value):
        fields = {field.name: below(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"t": "object", "class": name_of(kind), "v": fields}
    if isinstance(value, msgspec.Struct):
        fields = {name: below(getattr(value, name)) for name in value.__struct_fields__}
        return {"t": "object", "class": name_of(kind), "v": fields}
    if kind is Named:
        return {"t": "object", "class": name_of(kind), "v": {"a": below(value.a), "b": below(value.b)}}
    if kind is uuid.UUID:
        return {"t": "object", "class": name_of(kind), "v": {"int": below(value.int)}}
    if kind in (Words, collections.deque):
        return {"t": "filled", "class": name_of(kind), "v": [below(item) for item in value]}
    if kind in (Table, collections.OrderedDict, collections.defaultdict):
        pairs = [[below(key), below(item)] for key, item in value.items()]
        return {"t": "filled", "class": name_of(kind), "pairs": pairs}
    made = value.__reduce_ex__(5)
    arguments = [below(item) for item in made[1]]
    return {"t": "call", "callee": name_of(made[0]), "v": arguments}


def some_array(draw):
    code = draw.choice("bBhHiIqQdf")
    top = 255 if code in "BHIQ" else 127
    return array.array(code, [draw.randrange(top) for _ in range(draw.randrange(40))])


def scalar(draw):
    makers = [
        lambda: None,
        lambda: draw.random() < 0.5,
        lambda: draw.randrange(-300, 70000),
        lambda: draw.randrange(-(2**31) - 5, 2**31 + 5),
        lambda: draw.randrange(-(2**63), 2**63),
        lambda: draw.randrange(-(2**90), 2**90),
        lambda: 2**63 * draw.choice([1, -1]),
        lambda: draw.gauss(0, 1e6),
        lambda: float(draw.choice(["inf", "-inf", "0", "-0.0"])),
        lambda: "".join(draw.choice("aé漢😀\n\\' ") for _ in range(draw.randrange(20))),
        lambda: "x" * draw.choice([0, 255, 256, 300]),
    ]
    return draw.choice(makers)()


def text(draw):
    return f"{draw.randrange(10**9):x}"


def value(draw, depth, made, full):
    """A random value. `full`: also what protocols below 4 pickle as calls."""
    if depth <= 0 or draw.random() < 0.25:
        if full and draw.random() < 0.15:
            return draw.randbytes(draw.choice([0, 3, 255, 256, 1000]))
        return scalar(draw)
    if made and draw.random() < 0.15:
        return draw.choice(made)
    below = lambda: value(draw, depth - 1, made, full)
    several = lambda: [below() for _ in range(draw.choice([0, 1, 2, 3, 4, 7]))]
    makers = [
        lambda: several(),
        lambda: tuple(several()),
        lambda: {text(draw): below() for _ in range(draw.choice([0, 1, 2, 5]))},
        lambda: {draw.randrange(-5, 5000): below() for _ in range(draw.choice([1, 1, 6]))},
        lambda: Plain(text(draw), several(), below()),
        lambda: Slotted(text(draw), several()),
        lambda: Frozen(text(draw), tuple(several())),
        lambda: Table({text(draw): below() for _ in range(3)}),
        lambda: Words(several()),
        lambda: Tagged(text(draw), several(), True),
    ]
    if full:
        makers += [
            lambda: {draw.randrange(10**6) for _ in range(draw.randrange(6))},
            lambda: frozenset(text(draw) for _ in range(draw.randrange(6))),
            lambda: bytearray(draw.randbytes(draw.randrange(30))),
            lambda: Struct(rids=several(), finished=several(), counts=some_array(draw), inner=below()),
            lambda: Named(a=below(), b=text(draw)),
            lambda: collections.OrderedDict((text(draw), below()) for _ in range(3)),
            lambda: collections.deque(several()),
            lambda: collections.defaultdict(list, {text(draw): [1]}),
            lambda: Colour.RED,
            lambda: some_array(draw),
            lambda: uuid.UUID(int=draw.getrandbits(120)),
            lambda: Struct,
        ]
    new = draw.choice(makers)()
    made.append(new)
    return new


def dump(draw, what, protocol):
    """By C, by Python, or without frames' look-ahead by a pickler of its own: their opcodes differ in places."""
    if draw.random() < 0.7:
        return pickle.dumps(what, protocol)
    out = io.BytesIO()
    pickle._Pickler(out, protocol).dump(what)
    return out.getvalue()


def trees(draw, count):
    for _ in range(count):
        protocol = draw.choice([2, 3, 4, 5, 5, 5])
        what = value(draw, draw.randrange(1, 6), [], protocol >= 5)
        yield dump(draw, what, protocol), tell(what)


def large(draw, count):
    """Containers that the pickler fills in batches of 1,000."""
    for _ in range(count):
        size = draw.choice([999, 1000, 1001, 2000, 3456])
        what = [list(range(size)), {text(draw): n for n in range(size)}, set(range(size)), tuple(range(size))]
        yield dump(draw, what, 5), tell(what)


def message(draw, depth):
    """What servers send: structs, dicts, lists and texts, no short tuples."""
    below = lambda: message(draw, depth - 1)
    several = lambda: [below() for _ in range(draw.choice([0, 1, 3, 7]))]
    if depth <= 0 or draw.random() < 0.3:
        return draw.choice([draw.randrange(70000), text(draw), None, True, 0.5, draw.randbytes(20)])
    makers = [
        several,
        lambda: {text(draw): below() for _ in range(draw.choice([0, 1, 2, 5]))},
        lambda: Struct(rids=several(), finished=several(), counts=some_array(draw), inner=below()),
        lambda: Plain(text(draw), several(), below()),
        lambda: Slotted(text(draw), several()),
    ]
    return draw.choice(makers)()


def messages(draw, count):
    for _ in range(count):
        what = Struct(rids=[text(draw)], finished=[None, {"type": "length"}], counts=some_array(draw), inner=message(draw, 4))
        yield dump(draw, what, 5), tell(what)


def loops(draw, count):
    """Values that contain themselves."""
    for _ in range(count):
        one, two, three = [1], {}, Plain("r", [])
        one.append(one)
        two["self"], two["list"] = two, one
        three.more = three
        three.tokens.append(two)
        four = ([],)
        four[0].append(four)
        for what in (one, two, three, four):
            yield dump(draw, what, draw.choice([2, 3, 4, 5])), tell(what)


def numbers(draw, count):
    """Arrays of numpy, whose reduction is two calls and a state."""
    for _ in range(count):
        what = numpy.arange(draw.randrange(1, 2000), dtype=draw.choice(["int32", "int64", "float32"]))
        made = what.__reduce_ex__(2)
        said = {"length": len(what), "bytes": what.tobytes().hex(), "callee": name_of(made[0])}
        yield pickle.dumps(what, 2), said


def main():
    kind, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    sys.setrecursionlimit(100000)
    kinds = {"trees": trees, "large": large, "loops": loops, "messages": messages, "numbers": numbers}
    for pickled, said in kinds[kind](random.Random(seed), count):
        print(json.dumps({"pickle": pickled.hex(), "said": said}))


main()
