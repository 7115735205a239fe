"""Files of tensors as other programs write them: what is in them, and how a test reads them."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from lnsnum.files import single as single_file
from lnsnum.toolbox.reading import natural
from lnsnum.toolbox.sources import open_source
from lnsnum.weight_file import WeightFileError

RNG = np.random.default_rng(3)

ARRAYS = {
    "float64": RNG.standard_normal((5, 7)),
    "float32": RNG.standard_normal((3, 4, 5)).astype(np.float32),
    "float16": RNG.standard_normal(9).astype(np.float16),
    "int64": np.arange(-3, 3).reshape(2, 3),
    "int8": np.arange(-4, 4, dtype=np.int8),
    "uint32": np.arange(4, dtype=np.uint32),
    "bool": np.array([True, False, True]),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 3), np.float32),
    "five": RNG.standard_normal((2, 1, 3, 2, 2)),
    "a/b\x1b[31m é": np.ones((2, 2), np.float32),
}
"""What NumPy, torch and safetensors can all hold."""


def read(path):
    """Kind, arrays by name, texts and what was skipped."""
    arrays = {}
    with open_source(path) as source:
        assert source.names == sorted(source.names, key=natural)
        for name in source.names:
            told = source.describe(name)
            blocks = []
            for part in source.blocks(name):
                assert part.ndim == 1
                assert 0 < part.size <= single_file.BLOCK
                assert part.dtype == told.dtype
                assert part.dtype.isnative
                blocks.append(part.copy())
            joined = np.concatenate(blocks) if blocks else np.empty(0, told.dtype)
            arrays[name] = joined.reshape(told.shape)
        return source.kind, arrays, source.texts, source.skipped


def agrees(found, expected):
    """Whether two sets of arrays are alike, to the bit."""
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        native = np.asarray(array, array.dtype.newbyteorder("="), order="C")
        assert found[name].shape == native.shape, name
        assert found[name].dtype == native.dtype, name
        assert found[name].tobytes() == native.tobytes(), name
    return True


def refused(path):
    with pytest.raises(WeightFileError) as error:
        read(path)
    message = str(error.value)
    assert "\n" not in message
    assert "\x1b" not in message
    return message


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def archive_of(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def npy_of(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def tensor_of(size, stride, offset=0, numel=1, key="0", kind="FloatStorage"):
    """The pickle of torch.save of {"x": tensor}, its numbers whatever is given, right or wrong."""

    class Named:
        def __init__(self, name):
            self.name = name

    stack = []

    def put(value):
        if isinstance(value, tuple):
            stack.append(b"(")
            for part in value:
                put(part)
            stack.append(b"t")
        elif isinstance(value, Named):
            stack.append(b"c" + value.name.encode() + b"\n")
        else:
            stack.append(pickle.dumps(value, 2)[2:-1])

    stack.append(b"\x80\x02}X\x01\0\0\0x")
    put(Named("torch._utils\n_rebuild_tensor_v2"))
    stack.append(b"(")
    put(("storage", Named(f"torch\n{kind}"), key, "cpu", numel))
    stack.append(b"Q")
    for value in (offset, size, stride, False, None):
        put(value)
    stack.append(b"tRs.")
    return b"".join(stack)
