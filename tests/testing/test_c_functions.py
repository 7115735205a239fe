"""C functions as ctypes and cffi hold them: of arrays of every width, of numbers, and those that cannot be asked."""

import ctypes
import importlib.util
import re
import subprocess

import numpy as np
import pytest
from c_compiler import c_compiler

from lnsnum import lns6f2, lns12f6
from lnsnum.strategies import LawViolation, check_arithmetic_laws
from lnsnum.testing.c_functions import CFunction, c_function
from lnsnum.testing.calling import ImplementationError

POINTERS = {f"p{8 * n}": ctypes.POINTER(getattr(ctypes, f"c_uint{8 * n}")) for n in (1, 2, 4, 8)}
SIZE = ctypes.c_size_t

SOURCE = """
#include <stddef.h>
#include <stdint.h>
uint32_t one(uint32_t a, uint32_t b) { /* a product of lns6f2 */
    int m = (int)(a & 31) + (int)(b & 31) - 16;
    if (a == 32 || b == 32) return 32;
    if ((a & 31) == 0 || (b & 31) == 0 || m < -3) return 0;
    return (m < 1 ? 1 : m > 31 ? 31 : m) | ((a ^ b) & 32);
}
uint32_t wrong(uint32_t a, uint32_t b) { return a == 17 && b == 18 ? 0 : one(a, b); }
#define ARRAYS(one, T) { for (size_t i = 0; i < n; i++) ((T *)out)[i] = one(((T *)a)[i], ((T *)b)[i]); }
void one8(const uint8_t *a, const uint8_t *b, uint8_t *out, size_t n) ARRAYS(one, uint8_t)
void one16(const uint16_t *a, const uint16_t *b, uint16_t *out, unsigned n) ARRAYS(one, uint16_t)
void one32(const uint32_t *a, const uint32_t *b, uint32_t *out, size_t n) ARRAYS(one, uint32_t)
void one64(const uint64_t *a, const uint64_t *b, uint64_t *out, size_t n) ARRAYS(one, uint64_t)
void of_anything(void *a, void *b, void *out, size_t n) ARRAYS(one, uint32_t)
void wrong8(const uint8_t *a, const uint8_t *b, uint8_t *out, size_t n) ARRAYS(wrong, uint8_t)
void multiply(const uint32_t *a, const uint32_t *b, uint32_t *out, size_t n) ARRAYS(one, uint32_t)
void of_nothing(const uint32_t *a, const uint32_t *b, uint32_t *out, size_t n) { }
void of_signed(int32_t *a, int32_t *b, int32_t *out, size_t n) { }
void of_floats(float *a, float *b, float *out, size_t n) { }
void of_pointers(uint32_t **a, uint32_t **b, uint32_t **out, size_t n) { }
void of_two_widths(uint32_t *a, uint8_t *b, uint32_t *out, size_t n) { }
void without_length(uint32_t *a, uint32_t *b, uint32_t *out) { }
void of_three(uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *out, size_t n) { }
"""

ARGUMENTS = {
    "one": [ctypes.c_uint32] * 2,
    "wrong": [ctypes.c_uint32] * 2,
    "one8": [POINTERS["p8"]] * 3 + [SIZE],
    "one16": [POINTERS["p16"]] * 3 + [ctypes.c_uint],
    "one32": [POINTERS["p32"]] * 3 + [SIZE],
    "one64": [POINTERS["p64"]] * 3 + [SIZE],
    "of_anything": [ctypes.c_void_p] * 3 + [SIZE],
    "wrong8": [np.ctypeslib.ndpointer(np.uint8)] * 3 + [SIZE],
    "multiply": None,
    "of_nothing": None,
    "of_signed": [ctypes.POINTER(ctypes.c_int32)] * 3 + [SIZE],
    "of_floats": [ctypes.POINTER(ctypes.c_float)] * 3 + [SIZE],
    "of_pointers": [ctypes.POINTER(POINTERS["p32"])] * 3 + [SIZE],
    "of_two_widths": [POINTERS["p32"], POINTERS["p8"], POINTERS["p32"], SIZE],
    "without_length": [POINTERS["p32"]] * 3,
    "of_three": [POINTERS["p32"]] * 4 + [SIZE],
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    compiler = c_compiler()
    folder = tmp_path_factory.mktemp("c_functions")
    (folder / "products.c").write_text(SOURCE)
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", folder / "p.so", folder / "products.c"], check=True)
    return folder / "p.so"


def by_ctypes(path):
    library = ctypes.CDLL(str(path))
    for name, arguments in ARGUMENTS.items():
        getattr(library, name).argtypes = arguments
    return library


def declared():
    """A foreign function interface of cffi's that knows the functions."""
    ffi = pytest.importorskip("cffi").FFI()
    ffi.cdef("".join(f"{head};\n" for head in re.findall(r"^(?:uint32_t|void) \w+\(.*?\)", SOURCE, re.MULTILINE)))
    return ffi


def by_cffi(path):
    return declared().dlopen(str(path))


def compiled_by_cffi(path):
    ffi = declared()
    pytest.importorskip("setuptools", reason="cffi compiles by setuptools")
    ffi.set_source("_lnsnum_products", SOURCE)
    built = ffi.compile(tmpdir=str(path.parent))
    spec = importlib.util.spec_from_file_location("_lnsnum_products", built)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.lib


@pytest.fixture(scope="module", params=[by_ctypes, by_cffi, compiled_by_cffi], ids=lambda how: how.__name__)
def library(request, path):
    """The functions as attributes, with their arguments known."""
    return request.param(path)


def products(function, fmt=lns6f2):
    return check_arithmetic_laws(function, fmt, operations=["multiply"])


@pytest.mark.parametrize("name", ["one8", "one16", "one32", "one64", "of_anything", "multiply", "one"])
def test_functions_of_arrays_and_of_numbers(library, name):
    function = getattr(library, name)
    assert isinstance(c_function(function), CFunction) == (name != "one")
    assert products(function).inputs == 4096
    assert products({"multiply": function}).inputs == 4096


@pytest.mark.parametrize("name", ["wrong", "wrong8"])
def test_what_is_wrong_is_found(library, name):
    with pytest.raises(LawViolation, match=r"commutativity: multiply\(17, 18\) = 0"):
        products(getattr(library, name))


def test_the_functions_of_a_library_are_found_by_their_names(library):
    assert check_arithmetic_laws(library, "lns6f2").operations == ("multiply",)
    with pytest.raises(TypeError, match="has no method add"):
        check_arithmetic_laws(library, "lns6f2", operations=["add"])


@pytest.mark.parametrize("name", ["of_pointers", "of_two_widths", "without_length"])
def test_other_arguments_are_refused(library, name):
    with pytest.raises(TypeError, match="cannot be asked: its arguments must be pointers to numbers of one type"):
        products(getattr(library, name))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("of_three", r"multiply\(1, 1\) \(law range\) cannot be asked: it takes 4 arrays, and there are 3"),
        ("one8", r"multiply\(1, 1\) \(law range\) cannot be asked: it takes arrays of uint8, and these are of uint16"),
        ("of_signed", r"multiply\(1, 1\) \(law range\) cannot be asked: it takes arrays of int32, and these are"),
        ("of_floats", r"multiply\(1, 1\) \(law range\) cannot be asked: it takes arrays of float32, and these are"),
    ],
)
def test_arrays_that_do_not_fit_end_in_one_sentence(library, name, message):
    with pytest.raises(ImplementationError, match=message):
        products(getattr(library, name), lns12f6)


def test_a_function_that_writes_nothing_gives_no_code(library):
    with pytest.raises(LawViolation, match=r"range: multiply\(0, 0\) = 4294967295, that is 0 \* 0 = no code"):
        products(library.of_nothing)


def test_the_types_of_the_caller_stay(path):
    library = by_ctypes(path)
    products(library.one8)
    assert (library.one8.argtypes, library.multiply.argtypes) == (ARGUMENTS["one8"], None)


def test_functions_of_python_that_c_can_call():
    """A callback of ctypes' is a function of C like any other."""
    kind = ctypes.CFUNCTYPE(None, POINTERS["p16"], POINTERS["p16"], POINTERS["p16"], SIZE)

    @kind
    def sums(a, b, out, n):
        a, b, out = (np.ctypeslib.as_array(x, (n,)) for x in (a, b, out))
        out[:] = a + b

    a = np.array([1, 2], np.uint8)
    assert c_function(sums).ask((a, a), 1.0).tolist() == [2, 4]


@pytest.mark.parametrize("function", [len, np.add, None, {}, ctypes.c_int(3)])
def test_what_is_not_of_c_stays(function):
    assert c_function(function) is function
