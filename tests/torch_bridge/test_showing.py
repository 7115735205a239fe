"""What is printed of models and reports, and shown in notebooks."""

import copy
import gc
import html.parser
import pickle
import weakref

import pytest
import torch
from torch import nn

from lnsnum.torch_bridge import (
    LNSWeight,
    Madam,
    convert_model,
    decode_model,
    for_export,
    load_model,
    save_model,
    use_weight_only,
)
from lnsnum.torch_bridge.showing import OwnMethod
from lnsnum.torch_bridge.tables import Table

pytestmark = pytest.mark.usefixtures("one_thread")


class Cells(html.parser.HTMLParser):
    """The texts of a table's rows, and of paragraphs, from HTML."""

    def __init__(self, content):
        super().__init__(convert_charrefs=True)
        self.rows, self.notes, self.within = [], [], []
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self.within.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "p":
            self.notes.append("")

    def handle_endtag(self, tag):
        assert self.within.pop() == tag

    def handle_data(self, data):
        if self.within[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        elif self.within[-1] == "p":
            self.notes[-1] += data


# --------------------------------------------------------------------------------------------------------------- models


def a_model():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3), nn.Linear(32, 4), nn.Linear(3, 3), nn.LSTM(8, 4, bias=False), nn.ReLU()]
    layers.append(nn.Embedding(4, 2))
    return nn.Sequential(*layers)


def converted():
    model = a_model()
    formats = {"0.weight": "lns8f5", "1.*": "lns6f3", "2.weight": "lns12f7", "3.*": "lns8f4", "5.*": "lns8f5"}
    channels = {"0.weight": 0, "2.weight": 1, "3.weight*": 0}
    convert_model(model, formats, channels=channels, group_size={"1.weight": 16})
    return model


SHOWN = """Sequential(
  (0): Conv2d(2, 4, kernel_size=(3, 3), stride=(1, 1), weight=lns8f5 per channel)
  (1): Linear(in_features=32, out_features=4, bias=True, weight=lns6f3 in groups of 16, bias=lns6f3)
  (2): Linear(in_features=3, out_features=3, bias=True, weight=lns12f7 with scales of shape (1, 3))
  (3): LSTM(8, 4, bias=False, weight_ih_l0=lns8f4 per channel, weight_hh_l0=lns8f4 per channel)
  (4): ReLU()
  (5): Embedding(4, 2, weight=lns8f5)
)"""


def test_a_model_tells_of_its_formats_and_scales():
    model = converted()
    assert str(model) == SHOWN
    recurrent = nn.LSTM(2, 2)
    convert_model(recurrent, "lns8f5")
    assert str(recurrent) == "LSTM(2, 2, parameters=lns8f5)"


def test_copies_tell_of_themselves_whatever_becomes_of_the_original():
    model = converted()
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.deepcopy(copy.deepcopy(model))]
    decode_model(model)
    assert str(model) == str(a_model())
    del model
    gc.collect()
    for one in copies:
        assert str(one) == SHOWN
        convert_model(decode_model(one), "lns8f5")
        assert str(one).count("lns8f5") == 9


def test_loaded_and_exported_models_tell_of_what_they_have(tmp_path):
    save_model(tmp_path / "w", converted())
    assert str(load_model(tmp_path / "w", a_model())) == SHOWN
    assert "lns" not in str(for_export(converted())).lower().replace("_lookup", "")
    model = converted()
    with pytest.warns(UserWarning, match="puts plain floats in the place"):
        model.load_state_dict(a_model().state_dict(), assign=True)
    assert str(model) == str(a_model())


def test_a_text_of_its_own_is_kept_and_memory_is_freed_at_once():
    model = nn.Linear(2, 2)
    vars(model)["extra_repr"] = lambda: "mine"
    convert_model(model, "lns8f5")
    assert str(model) == "Linear(mine)"
    decode_model(model)
    assert str(model) == "Linear(mine)"
    model = converted()
    gc.collect()
    gc.disable()
    try:
        gone = weakref.ref(model[1])
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_a_method_of_one_object_is_its_copys_in_copies():
    class Owner:
        pass

    owner = Owner()
    owner.told = OwnMethod(owner, _name_of)
    owner.name = "first"
    other = copy.deepcopy(owner)
    other.name = "second"
    shallow = copy.copy(owner)
    assert (owner.told("?"), other.told("?"), shallow.told("?")) == ("first?", "second?", "first?")
    del owner
    assert shallow.told("?") == "None?"


def _name_of(owner, end):
    return f"{getattr(owner, 'name', None)}{end}"


# -------------------------------------------------------------------------------------------------------------- reports


def test_a_table_is_letters_of_one_width_and_html():
    table = Table(("name", "kind", "n"), [("a<b", "x", "1"), ("c", "long & wide", "20")], texts=2, notes=["d < e"])
    lines = ["name  kind          n", "a<b   x             1", "c     long & wide  20", "d < e"]
    assert table.text().splitlines() == lines
    cells = Cells(table.html())
    assert cells.rows == [["name", "kind", "n"], ["a<b", "x", "1"], ["c", "long & wide", "20"]]
    assert (cells.notes, cells.within) == (["d < e"], [])
    assert table.html().count("text-align: right") == 3
    assert Table((), []).text() == ""


def test_reports_are_tables_where_they_are_printed_and_in_notebooks():
    model = a_model()
    model[0].weight.mark = 1
    reports = [convert_model(model, "lns8f5", per_channel=True, filter_fn=lambda name, p: name != "5.weight")]
    reports.append(use_weight_only(model))
    optimizer = Madam(model[1].parameters())
    model[1](torch.ones(2, 32)).sum().backward()
    optimizer.step()
    reports.append(optimizer.step_report())
    for report in reports:
        cells = Cells(report._repr_html_())
        lines = str(report).splitlines()
        assert [" ".join(" ".join(row).split()) for row in cells.rows] + cells.notes == [
            " ".join(line.split()) for line in lines
        ]
    conversion, _, step = ({row[0]: row for row in Cells(report._repr_html_()).rows} for report in reports)
    assert conversion["0.weight"][1] == "lns8f5 per channel"
    assert conversion["5.weight"][1] == "float"
    assert conversion["1.bias"][3] == f"{reports[0]['1.bias'].relative_error:.4f}"
    assert step["weights"][1] == str(sum(p.numel() for p in model[1].parameters()))
    assert step["moved"][1] == f"{reports[2].moved:.2%}"
    assert all(isinstance(p, LNSWeight) for p in model[1].parameters())
