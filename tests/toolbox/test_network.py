"""Networks as programs in C: the classes and the outputs of torch, from gcc's strictest, and what is refused."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from c_compiler import needs_gcc
from c_networks import INTEGER_DUMP, SANITIZE, STRICT, check_outputs, run, trained
from command_line import run_command
from torch import nn

import lnsnum
from lnsnum import cli
from lnsnum.tasks import RUN_ENTRY, TASK_ENTRY
from lnsnum.tasks.digits import load_digits
from lnsnum.tasks.image_networks import small_cnn
from lnsnum.toolbox.network import export_network
from lnsnum.torch_bridge import convert_model, load_model, save_model
from lnsnum.torch_bridge.datapath import use_datapath
from lnsnum.torch_bridge.integer_layers import integer_layers
from lnsnum.torch_bridge.integer_twin import integer_twin
from lnsnum.torch_bridge.sequential import NetworkError, read_sequential
from lnsnum.weight_file import load_metadata, save_weights

DUMP = """
#include <stdio.h>
#include "net_network.h"
int main(void) {
    static float input[net_inputs], outputs[net_outputs];
    int i;
    while (fread(input, sizeof input, 1, stdin)) {
        net_outputs_of(input, outputs);
        for (i = 0; i < net_outputs; i++) printf("%.9g ", (double)outputs[i]);
        printf("%d\\n", net_class(input));
    }
    return 0;
}
"""


NETWORKS = {
    "digits": (lambda: small_cnn(1, 8, 8, 10), (1, 8, 8), {}),
    "larger images, by channels": (lambda: small_cnn(3, 18, 19, 5), (3, 18, 19), {"per_channel": True}),
    "layers that begin and end in place": (
        lambda: nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 5), nn.LeakyReLU(0.25), nn.Linear(5, 4), nn.ReLU6()),
        (6,),
        {},
    ),
    "pixels that are normalized, lists for pairs": (
        lambda: nn.Sequential(
            nn.MaxPool2d([2, 1]), nn.Conv2d(2, 1, 2), nn.Flatten(), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3)
        ),
        (2, 8, 5),
        {},
    ),
    "one layer": (lambda: nn.Linear(6, 3), (6,), {"fmt": "lns6f3"}),
    "strides, groups, dilation": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 2), dilation=(1, 2), groups=2, bias=False),
            nn.Hardtanh(-0.5, 1.5),
            nn.MaxPool2d(3, stride=2, padding=1, dilation=1),
            nn.BatchNorm2d(6),
            nn.Sequential(nn.Conv2d(6, 8, 3, padding="same"), nn.Dropout(0.5), nn.ReLU()),
            nn.AvgPool2d(2, stride=1, padding=1, count_include_pad=False),
            nn.AvgPool2d((2, 1), padding=(1, 0)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 3),
        ),
        (4, 11, 9),
        {},
    ),
}


@needs_gcc
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_torchs_to_rounding_and_classes_its_own(name, tmp_path):
    make, shape, options = NETWORKS[name]
    torch.manual_seed(0)
    made = make()
    model = trained(made if isinstance(made, nn.Sequential) else nn.Sequential(made), shape, **options)
    export_network(model, shape, tmp_path / "net")
    folder = tmp_path / "net"
    (folder / "dump.c").write_text(DUMP)
    for program, flags in (("fast", ["-O3"]), ("watched", SANITIZE)):
        command = ["gcc", *STRICT, *flags, "dump.c", "net_network.c", "-o", program]
        subprocess.run(command, cwd=folder, check=True, timeout=120)
    x = torch.randn(40, *shape)
    with torch.no_grad():
        expected = model(x).numpy()
    for program in ("fast", "watched"):
        outputs, classes = run(folder, program, x)
        assert np.abs(outputs - expected).max() <= 2e-6 * max(np.abs(expected).max(), 1.0)
        assert np.array_equal(classes, outputs.argmax(1))
    sorted_ = np.sort(expected, axis=1)
    clear = sorted_[:, -1] - sorted_[:, -2] > 1e-4
    assert np.array_equal(classes[clear], expected.argmax(1)[clear])


@needs_gcc
@pytest.mark.parametrize(
    ("kind", "function", "nan"), [("float", "lnsnum_argmax", "NAN"), ("int32_t", "lnsnum_greatest", "LNSNUM_NAN_RANK")]
)
def test_the_class_is_that_of_the_first_nan(kind, function, nan, tmp_path):
    """As torch's argmax says."""
    outputs = np.array(list(itertools.product([-1, 2, 3, np.nan], repeat=3)))
    rows = ", ".join(f"{{{', '.join(nan if np.isnan(x) else str(int(x)) for x in row)}}}" for row in outputs)
    (tmp_path / "classes.c").write_text(
        '#include <math.h>\n#include <stdio.h>\n#include "lnsnum_integer.h"\n'
        f"static const {kind} outputs[][3] = {{{rows}}};\n"
        "int main(void) {\n    size_t i;\n"
        f'    for (i = 0; i < {len(outputs)}; i++) printf("%d\\n", {function}(3, outputs[i]));\n    return 0;\n}}\n'
    )
    header = f"-I{Path(lnsnum.__file__).parent / 'c'}"
    subprocess.run(
        ["gcc", *STRICT, *SANITIZE, header, "classes.c", "-o", "classes"], cwd=tmp_path, check=True, timeout=120
    )
    done = subprocess.run([tmp_path / "classes"], capture_output=True, text=True, check=True, timeout=60)
    assert [int(line) for line in done.stdout.split()] == torch.tensor(outputs).argmax(1).tolist()


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A weight file of one epoch: the network of the README's command, sooner."""
    path = tmp_path_factory.mktemp("digits") / "digits.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lnsnum", "train", "--epochs", "1", "--out", str(path)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    assert not stopped.value.code
    return path


@needs_gcc
def test_the_digits_have_the_classes_of_torch(digits, tmp_path, capsys, monkeypatch):
    """All test images, as text into the program that the export writes; its flash and its memory."""
    folder = tmp_path / "out"
    code, out, _ = run_command(capsys, monkeypatch, "export", digits, "--to", "c-network", "--out", folder)
    assert code == 0
    manifest = json.loads((folder / "manifest.json").read_text())
    facts = manifest["network"]
    assert f"{facts['weights']:,} weights in {facts['layers']} layers" in out
    assert facts["written_bytes"] == 2 * 4 * 32 * 8 * 8  # the two largest that go from layer to layer
    subprocess.run(
        ["gcc", *STRICT, "-O2", "digits_main.c", "digits_network.c", "-o", "digits"],
        cwd=folder,
        check=True,
        timeout=120,
    )
    images = load_digits().test.images
    text = "\n".join(" ".join(map(repr, image.reshape(-1).tolist())) for image in images)
    done = subprocess.run([folder / "digits"], input=text, capture_output=True, text=True, check=True, timeout=60)
    model = load_model(digits, small_cnn(1, 8, 8, 10)).eval()
    with torch.no_grad():
        expected = model(images).argmax(1)
    assert [int(line) for line in done.stdout.split()] == expected.tolist()
    # codes, factors and tables as the linker has them, and the code itself
    subprocess.run(["gcc", "-std=c99", "-Os", "-c", "digits_network.c"], cwd=folder, check=True, timeout=120)
    size = subprocess.run(["size", "digits_network.o"], cwd=folder, capture_output=True, text=True, check=True)
    flash, _, memory = map(int, size.stdout.splitlines()[1].split()[:3])
    weights = sum(p.numel() for p in model.parameters())
    assert facts["constant_bytes"] < flash <= 1.15 * weights + 6000
    assert memory == facts["written_bytes"]
    for cut in ("0.5 1", "x"):
        failed = subprocess.run([folder / "digits"], input=cut, capture_output=True, text=True, timeout=60)
        assert failed.returncode == 1
        assert "an input is 64 numbers" in failed.stderr


INTEGERS = "activations=lns8f3,accumulate=lns12f7", "activations=lns8f3,accumulate=fixed:20"


def integer_digits(digits, datapath, count, folder, capsys, monkeypatch):
    """What the command writes for a datapath, compiled: outputs and classes of test images, and the twin's."""
    code, out, _ = run_command(
        capsys,
        monkeypatch,
        "export",
        digits,
        "--to",
        "c-network",
        "--datapath",
        datapath,
        "--prefix",
        "net",
        "--out",
        folder,
    )
    assert code == 0
    assert "in integers alone" in out
    (folder / "dump.c").write_text(INTEGER_DUMP)
    command = ["gcc", *STRICT, "-O2", "dump.c", "net_network.c", "-o", "dump"]
    subprocess.run(command, cwd=folder, check=True, timeout=120)
    data = load_digits()
    model = load_model(digits, small_cnn(1, 8, 8, 10)).eval()
    twin = integer_twin(model, (1, 8, 8), datapath, data.train.images[:1000])
    images = data.test.images[:count]
    return *run(folder, "dump", images), twin(images).numpy(), integer_layers(twin).products[-1], model(images)


@needs_gcc
@pytest.mark.parametrize("datapath", INTEGERS)
def test_the_digits_in_integers_are_the_datapaths(datapath, digits, tmp_path, capsys, monkeypatch):
    ranks, classes, expected, last, floats = integer_digits(digits, datapath, 60, tmp_path / "out", capsys, monkeypatch)
    check_outputs(ranks, classes, expected, last)
    assert (classes == floats.argmax(1).numpy()).mean() > 0.95
    facts = json.loads((tmp_path / "out" / "manifest.json").read_text())["network"]
    assert facts["written_bytes"] == 2 * 32 * 8 * 8  # the two largest that go from layer to layer
    flags = ["-std=c99", "-Os", "-c", "net_network.c"]
    subprocess.run(["gcc", *flags], cwd=tmp_path / "out", check=True, timeout=120)
    size = subprocess.run(["size", "net_network.o"], cwd=tmp_path / "out", capture_output=True, text=True, check=True)
    flash, _, memory = map(int, size.stdout.splitlines()[1].split()[:3])
    assert facts["constant_bytes"] < flash  # of this processor's code; what a microcontroller's takes is tested there
    assert memory == facts["written_bytes"]


@needs_gcc
@pytest.mark.thorough
@pytest.mark.parametrize("datapath", INTEGERS)
def test_all_digits_in_integers_are_the_datapaths(datapath, digits, tmp_path, capsys, monkeypatch):
    found = integer_digits(digits, datapath, 360, tmp_path / "out", capsys, monkeypatch)
    check_outputs(*found[:4])


def test_an_earlier_export_is_replaced_when_asked(digits, tmp_path, capsys, monkeypatch):
    arguments = "export", digits, "--to", "c-network", "--out", tmp_path / "out", "--prefix", "mine"
    assert run_command(capsys, monkeypatch, *arguments)[0] == 0
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert before == ["lnsnum_net.h", "manifest.json", "mine_main.c", "mine_network.c", "mine_network.h"]
    code, _, err = run_command(capsys, monkeypatch, *arguments)
    assert code == 2
    assert "has an earlier export: with --force it is replaced" in err
    code, out, _ = run_command(capsys, monkeypatch, *arguments, "--force", "--json")
    assert code == 0
    assert json.loads(out)["manifest"]["network"]["shape"] == [1, 8, 8]


def test_a_file_with_a_datapath_is_written_in_it_or_in_floats_when_asked(digits, tmp_path, capsys, monkeypatch):
    model = use_datapath(load_model(digits, small_cnn(1, 8, 8, 10)), "lns_madam_8bit")
    path, metadata = tmp_path / "own.safetensors", load_metadata(digits)
    save_model(path, model, metadata={name: metadata[name] for name in (TASK_ENTRY, RUN_ENTRY)})
    arguments = "export", path, "--to", "c-network", "--out", tmp_path / "out"
    code, _, err = run_command(capsys, monkeypatch, *arguments)
    assert (code, (tmp_path / "out").exists()) == (2, False)
    assert "layer 0 has accumulate='float32', sums of floats: give an accumulator" in err
    assert run_command(capsys, monkeypatch, *arguments, "--datapath", "float32")[0] == 0
    assert "lnsnum_conv2d" in (tmp_path / "out" / "own_network.c").read_text()


def test_bad_command_lines_get_one_sentence(digits, tmp_path, capsys, monkeypatch):
    plain = tmp_path / "plain.safetensors"
    save_weights(plain, {"a": np.zeros(2, np.float32)})
    out = tmp_path / "out"
    for arguments, why in (
        ((digits, "--pack"), "--pack is for --to c, not for --to c-network"),
        ((digits, "--only", "x"), "--only is for --to c and readmemh and npy, not for --to c-network"),
        ((digits, "--datapath", "lns8f3"), "--datapath lns8f3: 'lns8f3' is no preset of a datapath"),
        ((digits, "--datapath", "accumulate=lns12f6"), "adds products of codes, and activations are floats: give"),
        (
            (digits, "--datapath", "activations=lns20f9"),
            "--datapath activations=lns20f9: lns20f9 is wider than 16 bits",
        ),
        ((digits, "--datapath", "activations=lns8f3"), "layer 0 has accumulate='float32', sums of floats"),
        ((digits, "--prefix", "Int"), "prefix='Int' cannot begin names in C"),
        ((plain,), "names no task: it was not written by lnsnum train"),
        ((), "there is nothing to export: give a weight file that lnsnum train wrote"),
    ):
        code, _, err = run_command(capsys, monkeypatch, "export", *arguments, "--to", "c-network", "--out", out)
        assert (code, out.exists()) == (2, False)
        assert err.startswith("error: ")
        assert why in err
    code, _, err = run_command(capsys, monkeypatch, "export", digits, "--to", "npy", "--data", plain, "--out", out)
    assert code == 2
    assert "--data is for --to c-network, not for --to npy" in err
    code, _, err = run_command(
        capsys, monkeypatch, "export", digits, "--to", "c", "--datapath", INTEGERS[0], "--out", out
    )
    assert (code, out.exists()) == (2, False)
    assert "--datapath is for --to c-network, not for --to c" in err


def hooked():
    model = nn.Sequential(nn.Linear(4, 2))
    model[0].register_forward_hook(lambda *_: None)
    return model


def watched():
    model = nn.Sequential(nn.Linear(4, 2))
    model.register_forward_hook(lambda *_: None)
    return model


def with_nan():
    model = trained(nn.Sequential(nn.Linear(4, 2)), (4,))
    model[0].weight.codes[0, 0] = 128
    return model


def tiny():
    """Weights that are no subnormals, while the factor of their scale is one."""
    model = nn.Sequential(nn.Linear(4, 4, bias=False))
    nn.init.constant_(model[0].weight, 1.2e-38)
    return model


REFUSED = [
    (lambda: nn.Linear(4, 2), (4,), "the network is a Linear: only a torch.nn.Sequential"),
    (lambda: nn.Sequential(nn.Linear(4, 2), nn.GELU()), (4,), r"layer 1 is a GELU, which cannot be written: Linear"),
    (lambda: nn.Sequential(nn.Linear(4, 2)), (1, 2, 2), r"layer 0 \(Linear\) .* given 1 x 2 x 2 and takes 4: flatten"),
    (lambda: nn.Sequential(nn.Conv2d(1, 2, 3)), (9,), r"given 9 and takes channels x height x width"),
    (lambda: nn.Sequential(nn.Conv2d(1, 2, 3)), (2, 4, 4), r"given 2 channels and takes 1"),
    (lambda: nn.Sequential(nn.Conv2d(1, 2, 5)), (1, 4, 4), r"its window is larger than the image of 4 x 4"),
    (lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect")), (1, 4, 4), "padding_mode is 'refl"),
    (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2, ceil_mode=True)), (1, 5, 5), "its ceil_mode is not"),
    (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(2)), (1, 5, 5), "gives more than one pixel"),
    (lambda: nn.Sequential(nn.Linear(4, 2), nn.Hardtanh(0, float("inf"))), (4,), "its bounds are not finite"),
    (lambda: nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2, track_running_stats=False)), (4,), "no running stat"),
    (
        lambda: nn.Sequential(nn.MaxPool2d(2, stride=1, padding=1, dilation=3), nn.Flatten(), nn.Linear(1, 3)),
        (1, 2, 2),
        r"layer 0 \(MaxPool2d\) .*: its window has no pixel of the image of 2 x 2",
    ),
    (
        lambda: nn.Sequential(nn.AvgPool2d(3, padding=2), nn.Flatten(), nn.Linear(4, 3)),
        (1, 4, 4),
        r"layer 0 \(AvgPool2d\) .*: its padding is more than half of its window",
    ),
    (tiny, (4,), "layer 0: its weight has a log_offset of -4..., in lns8f5 a factor that is too small for float32"),
    (watched, (4,), r"the network \(Sequential\) has forward hooks, which would be lost"),
    (hooked, (4,), r"layer 0 \(Linear\) has forward hooks, which would be lost"),
]


@pytest.mark.parametrize(("make", "shape", "why"), REFUSED, ids=[why[:30] for *_, why in REFUSED])
def test_layers_that_cannot_be_written_are_refused_by_name(make, shape, why, tmp_path):
    model = make()
    convert_model(model, "lns8f5")
    with pytest.raises(NetworkError, match=why):
        export_network(model, shape, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_cannot_be_written_are_refused_by_name():
    for model, why in (
        (nn.Sequential(nn.Linear(4, 2)), "layer 0: its weight is of floats: convert_model it"),
        (nn.Sequential(nn.ReLU()), "the network has no layer with weights"),
        (trained(nn.Sequential(nn.Linear(4, 2)), (4,), "lns12f7"), "is of lns12f7: formats of at most 8 bits"),
        (with_nan(), "layer 0: its weight has NaN"),
    ):
        with pytest.raises(NetworkError, match=why):
            read_sequential(model, (4,))
