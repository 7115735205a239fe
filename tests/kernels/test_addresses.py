"""Arrays at addresses: in machine code and in plain Python the memory that NumPy sees there."""

import ctypes
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest

from lnsnum.kernels.addresses import array_at, fetch_add
from lnsnum.kernels.compiling import callback, kernel

pytestmark = pytest.mark.plain_python

TYPES = [np.uint8, np.uint16, np.uint32, np.uint64, np.int64, np.float32, np.float64]


def through_a_kernel(dtype):
    @kernel
    def add_one(address, size, like):
        array = array_at(address, size, like.dtype)
        for i in range(array.size):
            array[i] += like[0]

    return lambda array: add_one(array.ctypes.data, array.size, np.ones(1, dtype))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", [0, 1, 7, 100])
def test_a_kernel_reads_and_writes_what_is_there(dtype, size):
    memory = np.arange(size + 2).astype(dtype)
    through_a_kernel(dtype)(memory[1 : size + 1])
    expected = np.arange(size + 2) + ([0] + [1] * size + [0])
    np.testing.assert_array_equal(memory, expected.astype(dtype))


def test_in_plain_python_too():
    memory = np.arange(5, dtype=np.uint16)
    found = array_at(memory[1:].ctypes.data, 3, np.uint16)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, [1, 2, 3])
    found[:] = 7
    np.testing.assert_array_equal(memory, [0, 7, 7, 7, 4])


def test_fetch_add_gives_what_was_there():
    counter = np.array([5, 7])
    add = kernel(lambda address, amount: fetch_add(address, amount))
    assert [add(counter.ctypes.data, amount) for amount in (3, 0, -8)] == [5, 8, 8]
    assert fetch_add(counter.ctypes.data, 4) == 0
    assert counter.tolist() == [4, 7]


def count_up(job):
    numbers = array_at(job, 2, np.int64)
    for _ in range(numbers[1]):
        fetch_add(job, 1)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="a callback is machine code")
def test_a_callback_runs_on_threads_that_add_to_one_number():
    function = ctypes.CFUNCTYPE(None, ctypes.c_int64)(callback(count_up))
    assert callback(count_up) == callback(count_up)
    job = np.array([0, 50_000])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(function, [job.ctypes.data] * 4))
    assert job.tolist() == [200_000, 50_000]
