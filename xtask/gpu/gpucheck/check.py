"""What `gpuspan check --pid PID --json` says of sites. In: its text. Out: by library, how many functions are probed in
which cost class and where each is probed. Pure. Absent: findings, which are for people.
"""

import json


def libraries(text):
    """Path → (functions by cost class, symbol → offset in the file); nothing where the text has another form."""
    try:
        sections = json.loads(text)
    except ValueError:
        return {}
    found = [library for section in sections for library in section.get("libraries", [])]
    return {library["path"]: (library["probed"], offsets(library)) for library in found}


def offsets(library):
    return {symbol["symbol"]: int(symbol["offset"], 0) for symbol in library["symbols"]}


def price(text):
    """What the check measured a probe to cost here; None where it did not."""
    try:
        found = [section.get("probe_cost_ns") for section in json.loads(text)]
    except ValueError:
        return None
    return next((price_ for price_ in found if price_), None)
