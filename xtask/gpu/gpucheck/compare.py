"""Two views of the same work, compared. In: a summary of gpuspan, figures of others. Out: what agrees and what not.

Pure: no files, no clocks, no processes. Names of kernels come in several spellings (two demanglers, nvcc's internal
linkage, anonymous namespaces); `normal` brings them together, `base` leaves out template arguments as well.
"""

import re


def median(values):
    return quantile(values, 0.5)


def quantile(values, share):
    """The value below which this share of them lies, as the benchmark has it; None of none."""
    ordered = sorted(values)
    return ordered[round((len(ordered) - 1) * share)] if ordered else None


def ratio(without, with_):
    """Of paired rounds: the median ratio and its quartiles; None of none."""
    ratios = [b / a for a, b in zip(without, with_) if a]
    return (median(ratios), quantile(ratios, 0.25), quantile(ratios, 0.75)) if ratios else None


ANONYMOUS = re.compile(r"\(anonymous namespace\)|<unnamed>|_GLOBAL__N__\w+|_INTERNAL_[0-9a-f]{8}_\w+")
CLONE = re.compile(r"\s*\[clone [^\]]*\]$")
#: `4ul` and `(int)4`: the same constant as two demanglers write it.
SUFFIX = re.compile(r"(?<=[0-9])(?:ul|u|l|ll|ull)\b")
CAST = re.compile(r"\((?:unsigned |signed )?(?:int|long|short|char|bool|long long)\)(?=-?[0-9])")
OPEN, CLOSE = "<({[", ">)}]"


def normal(name):
    """A kernel's name without return type, parameters and spelling."""
    name = ANONYMOUS.sub("@", CLONE.sub("", name.strip()))
    name = SUFFIX.sub("", CAST.sub("", name))
    name = without_parameters(name)
    return last_word(name).replace(" ", "")


def without_parameters(name):
    """Cut the group of parentheses that ends the name, if one does."""
    if not name.endswith(")"):
        return name
    depth = 0
    for at in range(len(name) - 1, -1, -1):
        depth += (name[at] == ")") - (name[at] == "(")
        if depth == 0:
            return name[:at] or name
    return name


def last_word(name):
    """What follows the last space outside all brackets: the name without its return type."""
    depth = 0
    for at in range(len(name) - 1, -1, -1):
        depth += (name[at] in CLOSE) - (name[at] in OPEN)
        if depth == 0 and name[at] == " ":
            return name[at + 1 :]
    return name


def base(name):
    """The normal name without template arguments."""
    if name.startswith("_Z"):
        return mangled_base(name)
    depth, kept = 0, []
    for character in normal(name):
        if character == "<":
            depth += 1
        if depth == 0:
            kept.append(character)
        if character == ">":
            depth -= 1
    return "".join(kept)


def mangled_base(symbol):
    """The name in a symbol that no demangler takes, such as those with nvcc's `Unvhdl` for a lambda."""
    at, words = 2 + (symbol[2:3] == "N"), []
    while True:
        at += symbol[at : at + 1] == "L"
        digits = re.match(r"\d+", symbol[at:])
        if not digits:
            return "::".join(words) or symbol
        at += len(digits.group())
        words.append(symbol[at : at + int(digits.group())])
        at += int(digits.group())


def grouped(counts, key):
    out = {}
    for name, count in counts.items():
        out[key(name)] = out.get(key(name), 0) + count
    return out


def match(ours, theirs):
    """Kernels by name on both sides: how many runs agree by name, how many by base name alone, and what is left."""
    mine, other = grouped(ours, normal), grouped(theirs, normal)
    same = [name for name in mine if mine[name] == other.get(name)]
    result = {"by_name": sum(mine.pop(name) for name in same), "by_base_name": 0}
    for name in same:
        other.pop(name)
    mine, other = grouped(mine, base), grouped(other, base)
    for name in [name for name in mine if mine[name] == other.get(name)]:
        result["by_base_name"] += mine.pop(name)
        other.pop(name)
    result["only_gpuspan"], result["only_other"] = mine, other
    return result


def kernels(summary, demangle=None):
    """Runs by kernel, launched or as a node of a graph; the name is the symbol's where there is one."""
    counts = {}
    for kernel in summary["launches"]["by_kernel"]:
        symbol = kernel.get("symbol")
        name = (demangle(symbol) if demangle and symbol else None) or kernel["name"]
        counts[name] = counts.get(name, 0) + kernel["count"] + kernel.get("graph_count", 0)
    return counts


def runs(summary):
    """Kernels that ran: launched, and as nodes of graphs."""
    return summary["launches"]["total"] + summary["launches"]["graph_nodes"]


def evidence(summary):
    """Runs by where their names are from, or by why there is none."""
    counts = {}
    for kernel in summary["launches"]["by_kernel"]:
        key = kernel["evidence"]
        counts[key] = counts.get(key, 0) + kernel["count"] + kernel.get("graph_count", 0)
    return counts


def named_share(summary):
    """The share of runs whose kernel has a name; None without runs."""
    total = sum(evidence(summary).values())
    return 1 - summary["launches"]["unnamed"] / total if total else None


def nesting(call, made, calls):
    """Which driver calls were seen under `made` runtime calls, and whether each runtime call was seen once."""
    under = {name: count for name, count in sorted(calls.items()) if name.startswith("cu") and name[2:3].isupper()}
    words = [f"{name} {count}" + (f" ({count / made:g} each)" if made else "") for name, count in under.items()]
    return {"seen": calls.get(call, 0), "under": under, "text": ", ".join(words) or "no probed driver call"}


def busy_ns(intervals):
    """The length of the union of (start, duration) in nanoseconds."""
    total, end = 0, None
    for start, duration in sorted(intervals):
        stop = start + duration
        if end is None or start > end:
            total, end = total + duration, stop
        elif stop > end:
            total, end = total + stop - end, stop
    return total


def idle_within(waits, intervals):
    """Of each wait (start, duration): its length, and how much of it the device was idle for. Intervals may overlap."""
    busy = sorted((start, start + duration) for start, duration in intervals)
    found, first = [], 0
    for start, duration in sorted(waits):
        end, at, idle = start + duration, start, 0
        # Waits of one thread do not overlap; those of others begin no earlier, so what ended before is done with.
        while first < len(busy) and busy[first][1] <= start:
            first += 1
        for from_, to in busy[first:]:
            if from_ >= end:
                break
            idle += max(from_ - at, 0)
            at = max(at, to)
        found.append((duration, idle + max(end - at, 0)))
    return found


def within(low, figure, high):
    return low <= figure <= high
