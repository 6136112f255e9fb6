"""Checks that two builds of libggml-base speak the same language: `ggml_agree.py OURS THEIRS`.

A prebuilt backend was compiled against its own libggml-base and is loaded beside ours. It reads our tensors by
offset and our operations by number, so both lists must be equal, name by name; a version number alone does not tell.
"""

import ctypes
import re
import sys

# ggml asserts in debug builds, and reads beyond its tables in release builds, when asked past their ends. Both sides
# are therefore asked only as far as the end that the header of ours gives (GGML_OP_COUNT and so on, see below).
LISTS = {"ggml_op_name": "GGML_OP_COUNT", "ggml_type_name": "GGML_TYPE_COUNT", "ggml_unary_op_name": "GGML_UNARY_OP_COUNT"}


def count(header, end):
    """How many members come before `end` in its enumeration."""
    plain = "\n".join(line.split("//")[0] for line in header.splitlines())
    body = plain[: re.search(rf"\b{end}\b", plain).start()].rsplit("{", 1)[1]
    number = 0
    for text in (line.strip().rstrip(",") for line in body.splitlines()):
        if text.startswith("GGML_"):
            number = int(text.split("=")[1]) + 1 if "=" in text else number + 1
    return number


def facts(path, ends):
    library = ctypes.CDLL(path)
    found = {}
    for function, end in ends.items():
        call = getattr(library, function)
        call.restype = ctypes.c_char_p
        found[function] = [call(i) for i in range(end)]
    for function in ("ggml_tensor_overhead", "ggml_graph_overhead"):
        call = getattr(library, function)
        call.restype = ctypes.c_size_t
        found[function] = call()
    return found


def main(ours, theirs, header):
    with open(header, encoding="utf-8") as file:
        text = file.read()
    ends = {function: count(text, end) for function, end in LISTS.items()}
    one, other = facts(ours, ends), facts(theirs, ends)
    for function in one:
        if one[function] != other[function]:
            sys.exit(f"{function} differs: {one[function]} here, {other[function]} in the prebuilt backend")
    print(f"agreed on {ends}")


if __name__ == "__main__":
    main(*sys.argv[1:])
