"""The benchmark of converted networks: its convolutions as products, what it converts, how it counts."""

import torch
from torch import nn

from benchmarks import conversion_loss
from lnsnum.tasks.image_networks import small_cnn
from lnsnum.tasks.language import Transformer

torch.set_num_threads(1)


def test_convolutions_as_products_make_the_same_outputs():
    torch.manual_seed(0)
    x = torch.randn(3, 2, 9, 7)
    for own in (nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=(1, 0), dilation=(2, 1)), small_cnn(2, 9, 7, 5).eval()):
        torch.testing.assert_close(conversion_loss.with_matrices(own)(x), own(x), rtol=1e-4, atol=1e-5)


def test_what_is_multiplied_is_converted():
    torch.manual_seed(0)
    cnn, transformer = small_cnn(1, 8, 8, 10), Transformer(20)
    batches = {cnn: [torch.rand(9, 1, 8, 8)], transformer: [torch.randint(20, (2, 8))]}
    for model, inputs in batches.items():
        names = {n for n, p in model.named_parameters() if p.ndim > 1 and not n.startswith(("tokens", "places"))}
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        for scheme in ("LNS groups, mse", "LNS groups, adaptive"):
            decoded = conversion_loss.by_lns(model, 8, scheme, inputs)
            assert decoded.keys() == names
            for name, w in decoded.items():
                error = (w.reshape(before[name].shape) - before[name]).norm() / before[name].norm()
                assert 0 < error < 0.05
        assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_the_table_counts_seeds_and_marks_the_least():
    schemes = [*conversion_loss.LNS, *conversion_loss.INTEGERS]
    records = [
        {"network": "digits", "seed": seed, "bits": bits, "scheme": scheme, "loss": 1.0 + (i + seed) * 0.01,
         "accuracy": 50.0, "float_loss": 1.0, "float_accuracy": 60.0 + seed}
        for i, scheme in enumerate(schemes) for seed in (2, 0, 1) for bits in (8, 4)
    ]  # fmt: skip
    lines = conversion_loss.table(records, "digits").text().splitlines()
    assert lines[0].endswith("1.0000 nats, 61.00 % right")
    rows = {line[:28].strip(): line[28:].split() for line in lines[4 : 4 + len(schemes)]}
    assert rows[schemes[0]] == ["+0.0100*", "-", "-", "+0.0100*"]
    assert rows[schemes[1]] == ["+0.0200", "-", "-", "+0.0200"]
    assert rows["int channel"][0].endswith("*")
    verdict = conversion_loss.verdicts(records).splitlines()
    assert verdict[3].split() == ["digits", "3", "of", "3", "-", "-", "3", "of", "3"]
    assert verdict[4].split() == ["characters", "-", "-", "-", "-"]
