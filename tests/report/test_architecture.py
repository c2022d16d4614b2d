import xml.etree.ElementTree as ET

import pytest
import tensorflow as tf

from tff_autoprune import models, surgery
from tff_autoprune.report import architecture, architecture_svg
from tff_autoprune.surgery import cost

SHAPES = {"cnn": (28, 28, 1), "resnet": (84, 84, 3), "inception": (28, 28, 1)}


def halved(model):
    groups = [group for group in surgery.find_filter_groups(model) if group.prunable]
    return surgery.remove_filters(model, {g.name: list(range(g.channels // 2)) for g in groups})


@pytest.fixture(scope="module", params=list(SHAPES))
def pair(request):
    dense = models.build(request.param, input_shape=SHAPES[request.param], num_classes=10)
    return dense, halved(dense)


def test_nodes_show_the_channels_of_both_models(pair):
    nodes = {node.name: node for node in architecture.graph(*pair)}
    for index, model in enumerate(pair):
        for layer in model.layers:
            if isinstance(layer, (tf.keras.layers.Conv2D, tf.keras.layers.Dense)):
                node = nodes[layer.name]
                width = getattr(layer, "filters", None) or layer.units
                assert (node.before, node.after)[index] == width


def test_costs_of_the_nodes_add_up_to_the_models(pair):
    nodes = architecture.graph(*pair)
    for index, model in enumerate(pair):
        whole = cost.of(model)
        assert sum(node.parameters[index] for node in nodes) == whole.parameters
        assert sum(node.flops[index] for node in nodes) == whole.flops


def test_every_node_comes_after_what_it_reads(pair):
    seen = set()
    for node in architecture.graph(*pair):
        assert set(node.inputs) <= seen
        seen.add(node.name)


def test_branches_and_merges_are_kept():
    dense = models.build("inception", input_shape=SHAPES["inception"], num_classes=10)
    nodes = {node.name: node for node in architecture.graph(dense, dense)}
    merges = [node for node in nodes.values() if len(node.inputs) > 1]
    assert [len(node.inputs) for node in merges] == [3, 3]
    assert all(node.kind == "concatenate" for node in merges)
    assert not any("pool" in node.kind for node in nodes.values())


def test_layers_without_channels_of_their_own_follow():
    dense = models.build("cnn", input_shape=SHAPES["cnn"], num_classes=10)
    first = architecture.graph(dense, dense)[1]
    assert "max pool" in first.followers and "relu" in first.followers


def test_the_drawing_has_a_bar_for_what_is_left_and_what_was_there(pair):
    nodes = architecture.graph(*pair)
    drawing = ET.fromstring(architecture_svg.draw(nodes))
    groups = [element for element in drawing if element.tag == "g"]
    assert len(groups) == len(nodes)
    for node, group in zip(nodes, groups):
        before, after = (element for element in group if element.tag == "rect")
        ratio = float(after.get("width")) / float(before.get("width"))
        assert ratio == pytest.approx(node.after / node.before, abs=0.02)
        assert f"{node.before} → {node.after}" in "".join(group.itertext()) or ratio == 1
        # Nothing sticks out of the drawing.
        _, _, width, height = map(float, drawing.get("viewBox").split())
        assert 0 <= float(before.get("x")) <= width - float(before.get("width"))
        assert float(before.get("y")) + float(before.get("height")) <= height


def test_bars_of_a_row_do_not_overlap(pair):
    drawing = ET.fromstring(architecture_svg.draw(architecture.graph(*pair)))
    rows = {}
    for group in drawing.iter("g"):
        bar = next(element for element in group if element.tag == "rect")
        rows.setdefault(bar.get("y"), []).append((float(bar.get("x")), float(bar.get("width"))))
    for bars in rows.values():
        bars.sort()
        for (x, width), (next_x, _) in zip(bars, bars[1:]):
            assert x + width < next_x


def test_names_are_escaped():
    node = architecture.Node("a<b&c", "conv", 3, 3, [])
    ET.fromstring(architecture_svg.draw([node]))


def test_nothing_to_draw_is_nothing():
    assert architecture_svg.draw([]) == ""
