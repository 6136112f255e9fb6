"""C++ names as people read them, by the C++ library that PyTorch uses, too, so that spellings agree with
torch.profiler's. In: a symbol. Out: its name, or None. Absent: a demangler of our own.
"""

import ctypes


def demangler():
    """A function from symbols to names; None where the library is not to be had."""
    try:
        function = ctypes.CDLL("libstdc++.so.6").__cxa_demangle
    except (OSError, AttributeError):
        return None
    function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_char_p] + [ctypes.c_void_p] * 3
    free = ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]

    def demangle(symbol):
        status = ctypes.c_int()
        out = function(symbol.encode(), None, None, ctypes.addressof(status))
        if not out:
            return None
        name = ctypes.string_at(out).decode("utf-8", "replace")
        free(out)
        return name

    return demangle
