"""Image sets in every kind of file, written here byte by byte, and a gallery of what is refused."""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import pickle
import struct
import sys
import tarfile
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lnsnum.tasks import TaskError, file_tree, image_file, plain_pickle
from lnsnum.tasks.image_sets import load_images

# --- Files, as bytes by their names. Pixels are drawn by a counter: every image is another.


def pixels(seed, shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encoded(array, kind="PNG", mode=None, **options):
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def idx(array):
    head = struct.pack(f">{array.ndim + 1}I", 0x800 + array.ndim, *array.shape)
    return head + array.tobytes()


MNIST_IMAGES = {"train": pixels(0, (6, 5, 4)), "t10k": pixels(1, (3, 5, 4))}
MNIST_LABELS = {"train": np.array([0, 2, 1, 2, 0, 1], np.uint8), "t10k": np.array([2, 0, 1], np.uint8)}


def mnist():
    files = {}
    for part in ("train", "t10k"):
        files[f"{part}-images-idx3-ubyte"] = idx(MNIST_IMAGES[part])
        files[f"{part}-labels-idx1-ubyte"] = idx(MNIST_LABELS[part])
    return files


def python2(table):
    """A pickle as cPickle of Python 2 writes a table whose values are arrays, or lists of numbers or of strings."""

    def text(data):
        return b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data

    def value(data):
        if isinstance(data, np.ndarray):
            shape = b"".join(b"M" + struct.pack("<H", size) for size in data.shape)
            return (
                b"cnumpy.core.multiarray\n_reconstruct\nq\x20cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
                b"(K\x01" + shape + (b"\x86" if data.ndim == 2 else b"\x85")
                + b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|")
                + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + text(data.tobytes()) + b"tb"
            )  # fmt: skip
        item = (lambda x: text(x)) if data and isinstance(data[0], bytes) else (lambda x: b"K" + bytes([x]))
        return b"](" + b"".join(map(item, data)) + b"e"

    return b"\x80\x02}q\x01(" + b"".join(text(key) + value(data) for key, data in table.items()) + b"u."


CIFAR_IMAGES = pixels(2, (12, 3072))
CIFAR_LABELS = [i % 3 for i in range(12)]


def cifar10(write=python2):
    files = {"batches.meta": write({b"label_names": [b"plane", b"car", b"bird"], b"num_vis": [1]})}
    for i, name in enumerate([f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]):
        part = slice(2 * i, 2 * i + 2)
        files[name] = write({b"labels": CIFAR_LABELS[part], b"data": CIFAR_IMAGES[part], b"filenames": [b"a", b"b"]})
    return files


def cifar100(write=python2):
    table = {b"fine_labels": [0, 1, 2, 1], b"coarse_labels": [0, 0, 0, 0]}
    return {
        "meta": write({b"fine_label_names": [b"apple", b"bee", b"cup"], b"coarse_label_names": [b"things"]}),
        "train": write({**table, b"data": CIFAR_IMAGES[:4]}),
        "test": write({**table, b"data": CIFAR_IMAGES[4:8]}),
    }


def folder(*parts, count=2, size=(4, 6), gray=False):
    """Images of two classes in each of `parts` (without any, in the classes' own folders)."""
    files = {}
    for p, part in enumerate(parts or ("",)):
        for c, name in enumerate(("cat", "dog")):
            for i in range(count):
                shape = size if gray else (*size, 3)
                path = f"{part}/{name}/{i}.png".lstrip("/")
                files[path] = encoded(pixels(100 * p + 10 * c + i, shape))
    return files


SPLIT = folder("train", "test")


def write(path, files):
    for name, data in files.items():
        file = path / name
        if data is None:
            file.mkdir(parents=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    return path


def tar(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.type, member.size = (tarfile.DIRTYPE, 0) if data is None else (tarfile.REGTYPE, len(data))
            archive.addfile(member, io.BytesIO(data or b""))
    return buffer.getvalue()


def zipped(files, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name if data is not None else f"{name}/", data or b"")
    return buffer.getvalue()


PACK = {
    "set.zip": zipped,
    "set.tar": tar,
    "set.tar.gz": lambda files: gzip.compress(tar(files)),
    "set.tar.xz": lambda files: lzma.compress(tar(files)),
    "set.tar.bz2": lambda files: bz2.compress(tar(files)),
}


def same(images, train_images, train_labels, test_images, test_labels):
    for tensor, expected in (
        (images.train.images, train_images),
        (images.test.images, test_images),
    ):
        assert tensor.dtype == torch.uint8
        assert tensor.is_contiguous()
        np.testing.assert_array_equal(tensor.numpy(), expected)
    for tensor, expected in ((images.train.labels, train_labels), (images.test.labels, test_labels)):
        assert tensor.dtype == torch.int64
        assert tensor.tolist() == list(expected)


def same_mnist(images):
    same(
        images,
        MNIST_IMAGES["train"][:, None],
        MNIST_LABELS["train"],
        MNIST_IMAGES["t10k"][:, None],
        MNIST_LABELS["t10k"],
    )
    assert images.classes == ("0", "1", "2")


def same_cifar10(images):
    expected = CIFAR_IMAGES.reshape(-1, 3, 32, 32)
    same(images, expected[:10], CIFAR_LABELS[:10], expected[10:], CIFAR_LABELS[10:])
    assert images.classes == ("plane", "car", "bird")


def same_split(images):
    train, test = (
        np.stack([pixels(100 * p + 10 * c + i, (4, 6, 3)) for c in (0, 1) for i in (0, 1)]).transpose(0, 3, 1, 2)
        for p in (0, 1)
    )
    same(images, train, [0, 0, 1, 1], test, [0, 0, 1, 1])
    assert images.classes == ("cat", "dog")


# --- What is read


def python3(protocol):
    return lambda table: pickle.dumps({key.decode(): value for key, value in table.items()}, protocol)


@pytest.mark.parametrize("writer", [python2, *map(python3, range(pickle.HIGHEST_PROTOCOL + 1))])
def test_cifar_batches(tmp_path, writer):
    write(tmp_path / "cifar-10-batches-py", cifar10(writer))
    images = load_images(tmp_path / "cifar-10-batches-py")
    same_cifar10(images)
    assert images.source == "CIFAR-10 batches in cifar-10-batches-py"
    assert load_images(tmp_path).source == images.source  # the parent

    write(tmp_path / "100", cifar100(writer))
    images = load_images(tmp_path / "100")
    expected = CIFAR_IMAGES.reshape(-1, 3, 32, 32)
    same(images, expected[:4], [0, 1, 2, 1], expected[4:8], [0, 1, 2, 1])
    assert images.classes == ("apple", "bee", "cup")
    assert images.source == "CIFAR-100 batches in 100"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "value",
    [
        np.arange(12, dtype=np.uint8).reshape(3, 4),
        np.asfortranarray(np.arange(12, dtype=np.int16).reshape(3, 4)),
        np.array([-1, 1 << 40], ">i8"),
        [np.int64(5), 7],
        np.uint32(9),
        np.empty(0, np.uint8),
    ],
    ids=repr,
)
def test_arrays_of_plain_pickles(value, protocol):
    read = plain_pickle.array(plain_pickle.read(pickle.dumps(value, protocol)))
    np.testing.assert_array_equal(read, value)
    assert read.shape == np.shape(value)


@pytest.mark.parametrize(
    "value", [3, -(1 << 70), 2.5, None, True, False, "text\n'", b"bytes", bytearray(b"ab"), (), (1,), (1, (2, 3, 4, 5)),
              [1, [2]], {"a": {1: b"c"}}], ids=repr,
)  # fmt: skip
def test_plain_pickles(value):
    for protocol in range(3, pickle.HIGHEST_PROTOCOL + 1):
        if not isinstance(value, bytearray) or protocol > 4:
            assert plain_pickle.read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("dash", "-.")
@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_files(tmp_path, dash, end):
    files = {
        name.replace("-idx", f"{dash}idx") + end: gzip.compress(data) if end else data for name, data in mnist().items()
    }
    images = load_images(write(tmp_path / "MNIST" / "raw", files))
    same_mnist(images)
    assert images.source == "idx files in raw"
    same_mnist(load_images(tmp_path / "MNIST"))


def test_image_folder(tmp_path):
    images = load_images(write(tmp_path / "pets", SPLIT))
    same_split(images)
    assert images.source == "image folder pets"
    same_split(load_images(tmp_path))  # one folder above


@pytest.mark.parametrize("name", ["val", "valid"])
def test_the_test_part_by_other_names(tmp_path, name):
    same_split(load_images(write(tmp_path, {k.replace("test/", f"{name}/"): v for k, v in SPLIT.items()})))


def test_test_is_taken_before_val(tmp_path):
    same_split(load_images(write(tmp_path, {**SPLIT, "val/hen/0.png": b""})))


def test_every_fifth_image_is_for_testing(tmp_path):
    files = folder(count=11)
    images = load_images(write(tmp_path, files))
    order = {name: sorted(range(11), key=str) for name in ("cat", "dog")}  # names as text: 0, 1, 10, 2, ...
    expected = [
        (pixels(10 * c + i, (4, 6, 3)).transpose(2, 0, 1), c, k % 5 == 4)
        for c, name in enumerate(order)
        for k, i in enumerate(order[name])
    ]
    train, test = ([e for e in expected if e[2] == is_test] for is_test in (False, True))
    assert (len(train), len(test)) == (18, 4)
    same(images, [e[0] for e in train], [e[1] for e in train], [e[0] for e in test], [e[1] for e in test])


def test_a_class_may_be_called_train(tmp_path):
    files = {name.replace("cat/", "train/").replace("dog/", "car/"): data for name, data in folder(count=5).items()}
    assert load_images(write(tmp_path, files)).classes == ("car", "train")


@pytest.mark.parametrize("name", PACK)
@pytest.mark.parametrize("top", ["", "top/", "./", "./top/"])
def test_archives(tmp_path, name, top):
    path = tmp_path / name
    for files, check, what in (
        (SPLIT, same_split, "image folder"),
        (mnist(), same_mnist, "idx files in"),
        (cifar10(), same_cifar10, "CIFAR-10 batches in"),
    ):
        path.write_bytes(PACK[name]({top + inner: data for inner, data in reversed(files.items())}))
        images = load_images(path)
        check(images)
        assert images.source == f"{what} {name}"
    assert os.listdir(tmp_path) == [name]  # nothing is unpacked


@pytest.mark.parametrize("name", ["folder", *PACK])
def test_hidden_and_other_files_are_ignored(tmp_path, name):
    files = {
        "README.txt": b"?", ".DS_Store": b"?", "__MACOSX/train/cat/._0.png": b"?", "train/notes.csv": b"?",
        "train/.hidden/0.png": b"?", "train/cat/.x.png": b"?", "test/dog/Thumbs.db": b"?", **SPLIT,
    }  # fmt: skip
    if name == "folder":
        path = write(tmp_path / name, files)
    else:
        path = tmp_path / name
        path.write_bytes(PACK[name](files))
    same_split(load_images(path))


def test_links_and_special_members_are_ignored(tmp_path):
    buffer = io.BytesIO(tar(SPLIT))
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo(f"train/cat/{kind.decode()}.png")
            member.type, member.linkname = kind, "train/dog/0.png"
            archive.addfile(member)
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    same_split(load_images(tmp_path / "a.tar"))

    buffer = io.BytesIO(zipped(SPLIT))
    with zipfile.ZipFile(buffer, "a") as archive:
        link = zipfile.ZipInfo("train/cat/link.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    (tmp_path / "a.zip").write_bytes(buffer.getvalue())
    same_split(load_images(tmp_path / "a.zip"))


GRAY = pixels(7, (4, 6))
COLOUR = pixels(8, (4, 6, 3))


def image_set(tmp_path, first, second):
    """The images of a set of two files, as loaded."""
    files = {"train/a/0.png": first, "train/b/0.png": second, "test/a/0.png": first, "test/b/0.png": first}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_images(write(tmp_path, files)).train.images.numpy()


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (encoded(GRAY), GRAY),
        (encoded(GRAY, "BMP"), GRAY),
        (encoded(GRAY, "GIF"), GRAY),
        (encoded(GRAY, "PPM"), GRAY),  # .pgm
        (encoded(GRAY, mode="LA"), GRAY),
        (encoded((GRAY > 99) * np.uint8(255), mode="1"), (GRAY > 99) * np.uint8(255)),
        (encoded(GRAY.astype(np.uint16) * 257), GRAY),
        (encoded(GRAY.astype(np.uint16) * 256 + 255), GRAY),
    ],
    ids=["PNG", "BMP", "GIF", "PGM", "alpha", "1 bit", "16 bits", "16 bits, odd"],
)
def test_gray_images_have_one_channel(tmp_path, file, expected):
    np.testing.assert_array_equal(image_set(tmp_path, file, file), np.stack([expected[None]] * 2))


@pytest.mark.parametrize(
    "file",
    [
        encoded(COLOUR),
        encoded(COLOUR, "BMP"),
        encoded(COLOUR, "PPM"),
        encoded(COLOUR, "WEBP", lossless=True),
        encoded(np.dstack([COLOUR, GRAY])),
    ],
    ids=["PNG", "BMP", "PPM", "WEBP", "alpha"],
)
def test_gray_images_among_coloured_ones_become_rgb(tmp_path, file):
    for k, pair in enumerate([(encoded(GRAY), file), (file, encoded(GRAY))]):
        images = image_set(tmp_path / str(k), *pair)
        expected = [np.stack([GRAY] * 3), COLOUR.transpose(2, 0, 1)]
        np.testing.assert_array_equal(images, np.stack(expected if k == 0 else expected[::-1]))


def test_palettes(tmp_path):
    image = Image.fromarray(COLOUR).quantize(8)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=b"\0\xff")
    expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(image_set(tmp_path, buffer.getvalue(), encoded(COLOUR))[0], expected)


def test_jpeg(tmp_path):
    file = encoded(COLOUR, "JPEG")
    decoded = np.asarray(Image.open(io.BytesIO(file))).transpose(2, 0, 1)
    np.testing.assert_array_equal(image_set(tmp_path, file, encoded(COLOUR))[0], decoded)


@pytest.mark.parametrize("ending", ["png", "PNG", "jpg", "JPEG", "bmp", "gif", "webp", "ppm", "pgm"])
def test_endings(tmp_path, ending):
    same_split(load_images(write(tmp_path, {name.replace("png", ending): data for name, data in SPLIT.items()})))


def test_names_that_are_no_text(tmp_path):
    odd = os.fsdecode(b"\xff\x1b")
    images = load_images(write(tmp_path, {name.replace("cat", odd): data for name, data in SPLIT.items()}))
    assert images.classes == ("dog", "\\udcff\x1b")


# --- What is refused


def without(files, name):
    return {key: data for key, data in files.items() if key != name}


MNIST, CIFAR10, CIFAR100 = mnist(), cifar10(), cifar100()
PNG = encoded(COLOUR)


class Malice:
    def __reduce__(self):
        return os.system, ("touch /tmp/executed",)


def batch(**changes):
    return python2({b"data": CIFAR_IMAGES[:2], b"labels": [0, 1]} | {k.encode(): v for k, v in changes.items()})


def forged(dtype):
    """A batch whose array says that it is of another dtype."""
    data = pickle.dumps({"labels": [0, 1], "data": np.zeros((2, 3072), dtype)}, 2)
    assert b"cnumpy" in data
    return data


REFUSED = {
    "no set": ({"README": b"?"}, "no image set is recognised here: give CIFAR-10 or CIFAR-100 batches for Python"),
    "empty folder": ({"empty": None}, "no image set is recognised here"),
    "images without classes": ({"0.png": PNG}, "no image set is recognised here"),
    "two sets": ({**{f"a/{k}": v for k, v in MNIST.items()}, **{f"b/{k}": v for k, v in CIFAR10.items()}},
                 "it holds several image sets, 'a', 'b': give the folder of one"),
    "no test folder": ({"train/a/0.png": PNG, "train/b/0.png": PNG},
                       "it has a folder 'train', and none called 'test', 'val' or 'valid'"),
    "empty train": ({"train": None, "test/a/0.png": PNG, "test/b/0.png": PNG}, "'train' is empty: a folder for each"),
    "empty test": ({"test": None, "train/a/0.png": PNG, "train/b/0.png": PNG}, "'test' is empty: a folder for each"),
    "one class": ({f"a/{i}.png": PNG for i in range(9)}, "has images of one class only, 'a': two are needed"),
    "one class, split": ({"train/a/0.png": PNG, "test/a/0.png": PNG}, "'train' has images of one class only, 'a'"),
    "class not in test": ({**SPLIT, "train/hen/0.png": PNG}, "'test' lacks the class 'hen', which 'train' has"),
    "class not in train": ({**SPLIT, "test/hen/0.png": PNG}, "'train' lacks the class 'hen', which 'test' has"),
    "class without images": ({**SPLIT, "train/hen": None, "test/hen/0.png": PNG}, "'train/hen' has no images: files"),
    "class of other files": ({**folder(count=5), "hen/a.txt": b"?"}, "'hen' has no images: files ending in .png"),
    "too few": ({**folder(count=5), "hen/0.png": PNG}, "'hen' has 1 images, too few: every fifth is for testing"),
    "no image": ({**SPLIT, "train/cat/1.png": b"nothing"}, "'train/cat/1.png' cannot be decoded as an image"),
    "empty image": ({**SPLIT, "train/cat/1.png": b""}, "'train/cat/1.png' cannot be decoded as an image"),
    "truncated image": ({**SPLIT, "test/dog/1.png": SPLIT["test/dog/1.png"][:60]},
                        "'test/dog/1.png' cannot be decoded: "),
    "floats": ({**SPLIT, "test/dog/1.ppm": b"Pf\n6 4\n-1\n" + bytes(96)}, "cannot be decoded: its pixels are floats"),
    "other size": ({**SPLIT, "test/cat/1.png": encoded(pixels(0, (5, 7, 3)))},
                   "'test/cat/1.png' is of 7 x 5 pixels, and the images before it of 6 x 4: all have to be"),
    "idx lacking": (without(MNIST, "t10k-labels-idx1-ubyte"), "the idx files lack 't10k-labels-idx1-ubyte', plain or"),
    "idx truncated": ({**MNIST, "train-images-idx3-ubyte": MNIST["train-images-idx3-ubyte"][:-1]},
                      "'train-images-idx3-ubyte' says that 120 bytes follow its header, and 119 do"),
    "idx header truncated": ({**MNIST, "train-images-idx3-ubyte": b"\0\0\x08\x03\0\0\0\1\0\0\0\1\0\0"},
                             "'train-images-idx3-ubyte' has images of 1 x 0 pixels"),
    "idx too long": ({**MNIST, "t10k-labels-idx1-ubyte": MNIST["t10k-labels-idx1-ubyte"] + b"\0"},
                     "'t10k-labels-idx1-ubyte' says that 3 bytes follow its header, and more than that do"),
    "idx magic": ({**MNIST, "train-labels-idx1-ubyte": MNIST["t10k-images-idx3-ubyte"]},
                  "'train-labels-idx1-ubyte' starts with 0x00000803, and a file of labels with 0x00000801"),
    "idx huge": ({**MNIST, "train-images-idx3-ubyte": struct.pack(">4I", 0x803, *[0xFFFFFFFF] * 3)},
                 "bytes; 1024 MB are the most that are read"),
    "idx counts": ({**MNIST, "train-labels-idx1-ubyte": idx(np.zeros(5, np.uint8))},
                   "'train-labels-idx1-ubyte' has 5 labels for 6 images"),
    "idx label": ({**MNIST, "t10k-labels-idx1-ubyte": idx(np.array([0, 3, 1], np.uint8))},
                  "'t10k-labels-idx1-ubyte' has a label 3: those of the training part go from 0 to 2"),
    "idx one class": ({**MNIST, "train-labels-idx1-ubyte": idx(np.full(6, 2, np.uint8))},
                      "all training images are of one class, '2': two are needed at least"),
    "idx sizes": ({**MNIST, "t10k-images-idx3-ubyte": idx(pixels(0, (3, 4, 4)))},
                  "training images are of 4 x 5 pixels, test images of 4 x 4: both have to be of one size"),
    "idx no training": ({**MNIST, "train-images-idx3-ubyte": idx(np.empty((0, 5, 4), np.uint8)),
                         "train-labels-idx1-ubyte": idx(np.empty(0, np.uint8))}, "the training part is empty"),
    "idx no test": ({**MNIST, "t10k-images-idx3-ubyte": idx(np.empty((0, 5, 4), np.uint8)),
                     "t10k-labels-idx1-ubyte": idx(np.empty(0, np.uint8))}, "the test part is empty"),
    "idx gz": ({**without(MNIST, "train-images-idx3-ubyte"),
                "train-images-idx3-ubyte.gz": gzip.compress(MNIST["train-images-idx3-ubyte"])[:-12]},
               "'train-images-idx3-ubyte.gz' is damaged: "),
    "idx no gz": ({**without(MNIST, "train-images-idx3-ubyte"), "train-images-idx3-ubyte.gz": b"nothing"},
                  "'train-images-idx3-ubyte.gz' is damaged: Not a gzipped file"),
    "batch lacking": (without(CIFAR10, "data_batch_3"), "CIFAR-10 lacks its file 'data_batch_3'"),
    "meta lacking": (without(CIFAR10, "batches.meta"), "CIFAR-10 lacks its file 'batches.meta'"),
    "CIFAR-100 test lacking": (without(CIFAR100, "test"), "CIFAR-100 lacks its file 'test'"),
    "batch cut off": ({**CIFAR10, "data_batch_2": CIFAR10["data_batch_2"][:-9]}, "'data_batch_2' is damaged: no p"),
    "batch of a list": ({**CIFAR10, "data_batch_2": pickle.dumps([1])}, "'data_batch_2' is damaged: no pickle"),
    "no data": ({**CIFAR10, "data_batch_2": python2({b"labels": [1]})}, "'data_batch_2' has no 'data'"),
    "no labels": ({**CIFAR10, "data_batch_2": python2({b"data": CIFAR_IMAGES})}, "'data_batch_2' has no 'labels'"),
    "coarse": ({**CIFAR100, "train": batch()}, "'train' has no 'fine_labels'"),
    "fewer labels": ({**CIFAR10, "test_batch": batch(labels=[1])}, "'test_batch' has 1 labels for 2 images"),
    "label outside": ({**CIFAR10, "test_batch": batch(labels=[1, 3])}, "'test_batch' has a label 3: they go from 0 to"),
    "label of text": ({**CIFAR10, "test_batch": batch(labels=[b"a", b"b"])}, "has no array of integers as 'labels'"),
    "shape": ({**CIFAR10, "test_batch": batch(data=pixels(0, (2, 784)))},
              "'test_batch' has images of uint8 in shape (2, 784): uint8 in (N, 3072) are read"),
    "int64": ({**CIFAR10, "test_batch": forged(np.int64)}, "'test_batch' has images of int64 in shape (2, 3072)"),
    "float": ({**CIFAR10, "test_batch": forged(np.float32)}, "'data': elements that are no integers"),
    "objects": ({**CIFAR10, "test_batch": forged("O")}, "'data': a list where a bytes has to be"),
    "forged objects": ({**CIFAR10, "test_batch": batch().replace(b"U\x02u1", b"U\x02O8")},
                       "'test_batch' has no array of integers as 'data': elements that are no integers"),
    "structured": ({**CIFAR10, "test_batch": forged([("a", "u1")])}, "'data': elements that are no integers"),
    "no classes": ({**CIFAR10, "batches.meta": python2({b"num_vis": [1]})}, "has no list 'label_names' of names"),
    "one class in meta": ({**CIFAR10, "batches.meta": python2({b"label_names": [b"a"]})}, "has names of 1 classes"),
    "no rows": ({**CIFAR10, **{f"data_batch_{i}": batch(data=CIFAR_IMAGES[:0], labels=[]) for i in range(1, 6)}},
                "the training part is empty"),
    "malice": ({**CIFAR10, "data_batch_4": pickle.dumps({"data": Malice()}, 2)},
               "'data_batch_4' would run 'posix.system' when unpickled, as no batch of CIFAR does; nothing of it was"),
    "malice, protocol 4": ({**CIFAR10, "batches.meta": pickle.dumps({"label_names": Malice()}, 4)}, "would run 'posix"),
    "instance": ({**CIFAR10, "data_batch_4": b"(iposix\nsystem\n."}, "'data_batch_4' would run the opcode INST when"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case):
    files, sentence = REFUSED[case]
    with pytest.raises(TaskError) as folder_error:
        load_images(write(tmp_path / "set", files))
    assert sentence in str(folder_error.value)
    assert str(folder_error.value).startswith(f"{tmp_path}/set: ")
    assert "\n" not in str(folder_error.value)
    for name in ("set.zip", "set.tar"):  # an archive is refused in the same words
        (tmp_path / name).write_bytes(PACK[name](files))
        with pytest.raises(TaskError) as error:
            load_images(tmp_path / name)
        assert str(error.value).replace(f"{tmp_path}/{name}", "") == str(folder_error.value).replace(
            f"{tmp_path}/set", ""
        )


def test_nothing_is_executed(tmp_path, monkeypatch):
    executed = []
    monkeypatch.setattr(os, "system", executed.append)
    pickle.loads(pickle.dumps(Malice()))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TaskError, match="nothing of it was executed"):
            load_images(write(tmp_path, {**CIFAR10, "test_batch": pickle.dumps(Malice(), protocol)}))


def refused(path):
    with pytest.raises(TaskError) as error:
        load_images(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


def test_missing_paths(tmp_path):
    assert refused(tmp_path / "none").startswith("there is no such file or folder: give CIFAR-10 or")
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe").startswith("neither a file nor a folder: give")
    assert refused(tmp_path / ("n" * 300)).startswith("it has a name that is longer than the disk takes")


def test_one_file_of_a_set(tmp_path):
    for name in ("train-images-idx3-ubyte.gz", "data_batch_1", "0.png"):
        path = write(tmp_path, {name: b""}) / name
        assert refused(path) == "one file of an image set: give the folder that it belongs to"
    assert refused(write(tmp_path, {"data.csv": b"1,2\n"}) / "data.csv").startswith("no image set is recognised here")


@pytest.mark.parametrize("name", PACK)
def test_damaged_archives(tmp_path, name):
    """Cut anywhere, an archive is refused: never are fewer images taken for all."""
    path = tmp_path / name
    data = PACK[name](SPLIT)
    end = tar(SPLIT).rindex(SPLIT["test/dog/1.png"][-20:]) + 20 if name == "set.tar" else len(data)
    for length in range(0, end, 97):
        path.write_bytes(data[:length])
        refused(path)
    path.write_bytes(data)
    same_split(load_images(path))


@pytest.mark.parametrize("name", PACK)
def test_flipped_bits(tmp_path, name):
    """Compressed archives have checksums: with a flipped bit they are refused, or it changes nothing."""
    path = tmp_path / name
    data = PACK[name](SPLIT)
    for i in range(0, len(data), 61):
        path.write_bytes(data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1 :])
        try:
            images = load_images(path)
        except TaskError:
            continue
        if name not in ("set.tar", "set.zip"):  # a name may change in these
            same_split(images)


def test_a_damaged_header_in_a_tar_is_no_end(tmp_path):
    data = bytearray(tar(SPLIT))
    second = data.index(b"train/cat/1.png")
    data[second + 148] ^= 1  # its checksum
    (tmp_path / "a.tar").write_bytes(data)
    assert refused(tmp_path / "a.tar").startswith("a damaged archive, or no .tar in it: it does not end where")


def test_a_member_of_negative_size(tmp_path):
    """Some versions of tarfile go back and forth in such a file without end."""
    head = bytearray(512)
    head[:9] = b"a/b/c.png"
    head[124:136] = b"\xff" * 11 + b"\x00"  # -256
    head[156:157], head[257:265] = b"0", b"ustar\x0000"
    head[148:156] = b"%06o\0 " % (sum(head) + 8 * 32)
    (tmp_path / "a.tar").write_bytes(tar(SPLIT)[:1024] + bytes(head) + bytes(1024))
    assert refused(tmp_path / "a.tar").startswith("a damaged archive")


def test_no_tar_in_a_compressed_file(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"text" * 999))
    assert refused(tmp_path / "a.gz").startswith("a damaged archive, or no .tar in it: ")


def test_encrypted_members(tmp_path):
    data = bytearray(zipped(SPLIT))
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    assert refused(tmp_path / "a.zip") == "'train/cat/0.png' is encrypted: make an archive without a password"


def test_limits(tmp_path, monkeypatch):
    big = {**SPLIT, "train/cat/1.png": SPLIT["train/cat/1.png"] + bytes(1 << 20)}
    monkeypatch.setattr(image_file, "LARGEST_FILE", 1 << 20)
    for name, pack in {"folder": None, **PACK}.items():
        path = tmp_path / name
        path.write_bytes(pack(big)) if pack else write(path, big)
        assert refused(path) == "'train/cat/1.png' has more than 1 MB, the most that such a file may have"
    monkeypatch.setattr(file_tree, "LARGEST_TOTAL", 1 << 19)
    assert "GiB of data: unpack it and name the folder" in refused(tmp_path / "set.tar")


def test_decompression_bombs(tmp_path):
    """A PNG of some kilobytes that says it has 10^8 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(9999))) + chunk(b"IEND", b"")
    text = refused(write(tmp_path, {**SPLIT, "train/cat/0.png": bomb}))
    assert text.startswith("'train/cat/0.png' cannot be decoded: Image size (100000000 pixels) exceeds limit")


def test_a_pickle_that_asks_for_memory_gets_none():
    """Numbers in the memo and lengths that would take gigabytes in pickle's own reader."""
    for bomb in (b"Nr\xff\xff\xff\xff.", b"\x96" + struct.pack("<Q", 1 << 40) + b".", b"\x8e" + b"\xff" * 8 + b"."):
        with contextlib.suppress(ValueError):
            assert plain_pickle.read(bomb) is None


@pytest.mark.parametrize("deep", [b"N" + b"\x85" * 100_000, b"]" * 100_000 + b"a" * 99_999], ids=["tuples", "lists"])
def test_deeply_nested_pickles(tmp_path, deep):
    """Neither as a key, whose hash would overflow the stack, nor as data."""
    assert plain_pickle.read(deep + b".")
    for table in (b"}" + deep + b"Ns.", b"}U\x04data" + deep + b"sU\x06labels]s."):
        assert "'data_batch_1' " in refused(write(tmp_path, {**CIFAR10, "data_batch_1": table}))


ANY = [
    *[(CIFAR10, name) for name in ("data_batch_1", "test_batch", "batches.meta")],
    *[(MNIST, name) for name in MNIST],
    *[({**without(MNIST, "train-images-idx3-ubyte"), "train-images-idx3-ubyte.gz": b""}, "train-images-idx3-ubyte.gz")],
    *[(SPLIT, name) for name in ("train/cat/0.png", "test/dog/1.png")],
]


def damage(data, draw):
    """Bytes made of a good file's: some replaced, inserted or cut off; or any bytes at all."""
    if not data or draw(st.booleans()):
        return draw(
            st.sampled_from([b"", b"\x80\x02", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"P5 "])
        ) + (draw(st.binary(max_size=200)))
    at = draw(st.integers(0, len(data) - 1))
    end = draw(st.integers(at, min(at + 8, len(data))))
    return data[:at] + draw(st.binary(max_size=8)) + data[end:]


@given(st.data())
def test_any_bytes_in_a_file(tmp_path_factory, data):
    """Read or refused; no other exception."""
    files, name = data.draw(st.sampled_from(ANY))
    path = write(tmp_path_factory.mktemp("any"), {**files, name: damage(files[name], data.draw)})
    images = None
    with contextlib.suppress(TaskError):
        images = load_images(path)
    if images is not None:
        for part in (images.train, images.test):
            assert len(part.images) == len(part.labels) > 0
            assert 0 <= int(part.labels.min()) <= int(part.labels.max()) < len(images.classes)


@given(st.data(), st.sampled_from(sorted(PACK)))
def test_any_bytes_as_an_archive(tmp_path_factory, data, name):
    path = tmp_path_factory.mktemp("any") / name
    content = damage(PACK[name](SPLIT), data.draw)
    if data.draw(st.booleans()):
        content = data.draw(st.sampled_from([b"PK\3\4", b"\x1f\x8b", b"\xfd7zXZ\0", b"BZh9"])) + content
    path.write_bytes(content)
    with contextlib.suppress(TaskError):
        load_images(path)


def test_without_pillow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    same_mnist(load_images(write(tmp_path / "mnist", MNIST)))
    with pytest.raises(ImportError, match=r"image files need Pillow: pip install 'lnsnum\[tasks\]'"):
        load_images(write(tmp_path / "pets", SPLIT))
