import json
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from PIL import Image

from tff_autoprune import config as config_lib
from tff_autoprune.report import charts, headline, page, repeat, run_data, write

VOID_TAGS = ("meta", "link", "br", "input", "img", "hr")


class Outline(HTMLParser):
    """What a page is made of, without its scripts and styles."""

    def __init__(self, text):
        super().__init__()
        # The plotting library is most of the page and none of its outline.
        text = re.sub(r"(<script>).*?(</script>)", r"\1\2", text, flags=re.DOTALL)
        self.tags, self.ids, self.headings, self.stack, self.words = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag not in VOID_TAGS:
            self.stack.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.stack):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def written(run):
    """The page as the command writes it."""
    return Outline(write.write_report(run.path).directory.report.read_text(encoding="utf-8"))


def rendered(run):
    """The page without what needs the models, which takes seconds to load."""
    loaded = run_data.load(run.path)
    return Outline(page.render_run(loaded, charts.of(loaded)))


def test_the_page_is_sound_and_self_contained(exported_run):
    outline = written(exported_run)
    assert not outline.stack
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.headings[0] == 1 and outline.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(outline.headings, outline.headings[1:]))
    for _, attributes in outline.tags:
        assert not attributes.get("src")
        assert attributes.get("href", "#").startswith(("#", "data:"))
        assert attributes.get("aria-labelledby", outline.ids[0]) in outline.ids

    images = [a for _, a in outline.tags if a.get("role") == "img"]
    assert len(images) == 4
    assert all(len(a["aria-label"]) > 40 for a in images)


def test_the_headline_is_the_result(exported_run):
    summary = exported_run.read_summary()
    saved = 100 * (1 - summary["pruned"]["parameters"] / summary["dense"]["parameters"])
    text = rendered(exported_run).text
    assert f"{saved:.0f} % fewer parameters" in text
    assert f"{100 * summary['accuracy']['test']:.1f} % accurate" in text


def test_every_cut_is_listed(exported_run):
    text = rendered(exported_run).text
    assert "All 4 cuts" in text
    assert text.count("refused") >= 2


def test_plots_are_written(exported_run):
    paths = write.write_plots(
        charts.of(run_data.load(exported_run.path)), exported_run.path / "plots"
    )
    found = {path.name for path in paths}
    assert found == {"training.png", "filters.png", "latency.png"}
    for name in found:
        with Image.open(exported_run.plots / name) as image:
            assert image.width > 1000 and len(image.getcolors(2**24)) > 20


@pytest.mark.parametrize(
    ("missing", "gone"),
    [
        ("benchmark", "Latency on this host"),
        ("export", "Exported models"),
        ("metrics", "How it went"),
        ("pruning", "All 4 cuts"),
    ],
)
def test_what_a_run_does_not_have_yet_is_left_out(exported_run, missing, gone):
    assert gone in rendered(exported_run).text
    if missing in ("benchmark", "export"):
        summary = exported_run.read_summary()
        del summary[missing]
        exported_run.summary.write_text(json.dumps(summary))
    else:
        getattr(exported_run, missing).unlink()
    outline = rendered(exported_run)
    assert gone not in outline.text
    assert "fewer parameters" in outline.text


def test_a_run_without_models_has_no_drawing(exported_run):
    assert "The network, before and after" in written(exported_run).text
    exported_run.pruned_model.unlink()
    assert "The network, before and after" not in written(exported_run).text


def test_a_summary_alone_is_enough(exported_run):
    """A run that was interrupted early has little; the page says so instead of failing."""
    exported_run.summary.write_text(json.dumps({"schema_version": 1, "rounds_completed": 3}))
    for name in ("metrics", "pruning", "dense_model", "pruned_model"):
        getattr(exported_run, name).unlink()
    assert "The run ended after 3 of 16 rounds." in rendered(exported_run).text


def test_user_text_cannot_become_markup(exported_run):
    stored = exported_run.read_config()
    stored["config"]["data"]["name"] = "</script><img src=x onerror=alert(1)>"
    exported_run.config.write_text(json.dumps(stored))
    outline = rendered(exported_run)
    assert not [tag for tag, _ in outline.tags if tag == "img"]
    assert "onerror=alert(1)" in outline.text


def change_summary(run, change):
    summary = run.read_summary()
    change(summary)
    run.summary.write_text(json.dumps(summary))


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (lambda s: s.update(rounds_completed=9), "The run ended after 9 of 16 rounds"),
        (
            lambda s: s["export"]["pruned.full_int8"].update(
                accuracy=s["export"]["pruned.float32"]["accuracy"] - 0.02
            ),
            "Full int8 loses 2.0 points",
        ),
        (
            lambda s: s["export"]["pruned.float16"].update(examples=40),
            "on 40 held-out images only",
        ),
        (
            lambda s: s["benchmark"]["host"].update(busy_cores=1.6, cores=2),
            "Other programs kept 1.6 of the host's 2 cores busy",
        ),
        (
            lambda s: s["benchmark"].update(speedup_interval95=[0.9, 1.3]),
            "cannot tell the two models' speed apart",
        ),
        (lambda s: s["faults"].update(failed_clients=5), "5 times a sampled client"),
    ],
)
def test_doubts_are_at_the_top(exported_run, change, warning):
    def calm(summary):
        summary["benchmark"]["host"].update(busy_cores=0.1, cores=2)
        summary["benchmark"]["speedup_interval95"] = [1.5, 1.6]

    change_summary(exported_run, calm)
    assert warning not in rendered(exported_run).text
    change_summary(exported_run, change)
    assert warning in rendered(exported_run).text


def test_device_results_are_shown_with_their_backend(exported_run):
    folder = exported_run.path / "android"
    folder.mkdir()
    (folder / "speedups.csv").write_text(
        "device_title,model,baseline,speedup,low,high,verdict,configuration\n"
        'Pixel 6 (loopback double),pruned.float32,dense.float32,2.5,2.1,2.9,faster,"cpu, big"\n'
        'Pixel 6 (loopback double),pruned.float32,dense.float32,,,,too few rounds,"gpu, big"\n'
    )
    (folder / "measurements.csv").write_text(
        "device_title,model,valid,latency_us,configuration\n"
        'Pixel 6 (loopback double),dense.float32,True,5000,"cpu, big"\n'
        'Pixel 6 (loopback double),dense.float32,False,9000,"cpu, big"\n'
        'Pixel 6 (loopback double),pruned.float32,True,2000,"cpu, big"\n'
    )
    text = rendered(exported_run).text
    assert "Pixel 6 (loopback double)" in text
    assert "5.00 ms 2.00 ms 2.50× 2.10 to 2.90 faster" in text
    assert "– – – – too few rounds" in text


def test_files_that_train_are_shown(exported_run):
    def add(summary):
        summary["client"] = {
            "dense": {
                "path": "tflite/dense.client.tflite",
                "bytes": 262348,
                "loss_difference": 1e-7,
                "weights_difference": 2e-6,
                "step_ms": 40.0,
                "tensorflow_step_ms": 6.0,
            },
            "pruned": {
                "path": "tflite/pruned.client.tflite",
                "bytes": 79996,
                "loss_difference": 3e-7,
                "weights_difference": 4e-6,
                "step_ms": 10.0,
                "tensorflow_step_ms": 3.0,
            },
            "batch_size": 20,
            "optimizer": "momentum",
            "step_speedup": 4.0,
        }

    assert "Training on a phone" not in rendered(exported_run).text
    change_summary(exported_run, add)
    outline = rendered(exported_run)
    assert not outline.stack
    assert "momentum, batches of 20" in outline.text
    assert "Size of the file 262 kB 80.0 kB 30 %" in outline.text
    assert "A training step 40.0 ms 10.0 ms 25 %" in outline.text
    assert "The same step in TensorFlow 6.00 ms 3.00 ms 50 %" in outline.text
    assert "Difference of the weights' changes 2.0e-06 4.0e-06" in outline.text
    assert "draws at random" not in outline.text
    shown = {a["data-path"]: a["value"] for tag, a in outline.tags if tag == "data"}
    assert shown["client/pruned/step_ms"] == "10.0"

    def with_dropout(summary):
        for name in ("dense", "pruned"):
            summary["client"][name].update(loss_difference=None, weights_difference=None)

    change_summary(exported_run, with_dropout)
    text = rendered(exported_run).text
    assert "Difference of the weights' changes – –" in text
    assert "draws at random in training, so its step was not compared" in text


def test_the_command_trains_the_same_again(exported_run):
    config = run_data.load(exported_run.path).config
    words = shlex.split(repeat.command(config).replace("\\\n", " "))
    assert words[:2] == ["tff-autoprune", "train"] and words[-1].startswith("--run_dir=")
    assert config_lib.to_json(config_lib.read_arguments(words[2:])) == config


def test_there_is_one_test_accuracy(exported_run):
    """Exports are checked on fewer images; what they read there is no second test accuracy."""
    entry = exported_run.read_summary()["export"]["pruned.float32"]
    text = rendered(exported_run).text
    assert "Points are of accuracy on these images, against Keras on the same" in text
    assert "accuracy/test" in {
        a["data-path"] for tag, a in rendered(exported_run).tags if tag == "data"
    }
    assert f"{100 * entry['accuracy']:.1f} %" not in text.partition("Exported models")[2]


@pytest.mark.parametrize(
    ("split", "whose"),
    [(None, "clients that never trained"), ("examples", "test examples of the clients that train")],
)
def test_whose_accuracy_it_is(exported_run, split, whose):
    stored = exported_run.read_config()
    stored["config"]["data"]["split"] = split
    exported_run.config.write_text(json.dumps(stored))
    text = rendered(exported_run).text
    assert whose in text
    assert ("never trained" in text) == (split is None)


def test_what_a_race_found_is_shown_in_points_or_not_at_all(exported_run):
    columns = "round,action,reason,removed,factorized,parameters,flops"
    move = '4,move,small,"{""conv_1"": 2}","{""conv_2"": ""spatial, rank 8""}",900,10'
    exported_run.pruning.write_text(f"{columns}\n{move}\n")
    assert "Found, points" not in rendered(exported_run).text
    columns += ",measured_points,measured_error"
    exported_run.pruning.write_text(f"{columns}\n{move},-0.44,0.25\n")
    text = rendered(exported_run).text
    assert "Found, points" in text
    assert "2 channels (conv_1 2) conv_2 factorized (spatial, rank 8) 900" in text
    assert "−0.4 ± 0.2 kept" in text
    assert "clients that do not train" in text


def test_privacy_is_said(exported_run):
    privacy = {"epsilon": 3.14159, "delta": 1e-5, "rounds": 16}
    change_summary(exported_run, lambda s: s.update(privacy=privacy))
    text = rendered(exported_run).text
    assert "Differential privacy: epsilon 3.14 at delta 1e-05 after 16 rounds." in text
    assert "Privacy, epsilon 3.14" in text
    loaded = run_data.load(exported_run.path)
    assert headline.lines(loaded)[-1].startswith("privacy   differential privacy: epsilon 3.14")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "name at least one run directory"), (["/nowhere/run"], "is not a folder")],
)
def test_the_command_fails_in_one_line(arguments, message):
    done = subprocess.run(
        [sys.executable, "scripts/report.py", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and message in done.stderr
