import json

import pytest

from tff_autoprune import files
from tff_autoprune.errors import UserError
from tff_autoprune.report import run_data

METRICS = """round,validation_accuracy,parameters,download_bytes,upload_bytes,feedback_bytes,\
dense_download_bytes,dense_upload_bytes,filters/a,filters/b
1,,100,10,5,1,20,10,8,16
2,0.5,100,10,5,,20,10,8,16
3,0.6,60,6,3,1,20,10,6,10
"""
HEADER = """round,action,reason,removed,factorized,parameters,\
predicted_points,predicted_error,measured_points,measured_error
"""


def cut(round_num, removed):
    groups = json.dumps(removed).replace('"', '""')
    return f'{round_num},cut,trial,"{groups}",{{}},60,-0.3,0.1,,\n'


def judge(round_num, action):
    return f"{round_num},{action},seen,{{}},{{}},60,,,-0.4,\n"


@pytest.fixture
def write(tmp_path):
    def write_run(decisions, metrics=METRICS):
        files.write_json(
            tmp_path / "config.json", {"config": {"pruning": {"method": "auto"}}, "versions": {}}
        )
        files.write_json(tmp_path / "summary.json", {"schema_version": 1})
        files.write_text(tmp_path / "metrics.csv", metrics)
        if decisions is not None:
            files.write_text(tmp_path / "pruning.csv", HEADER + decisions)
        return run_data.load(tmp_path)

    return write_run


@pytest.mark.parametrize(
    ("decisions", "outcomes"),
    [
        (cut(2, {"a": 2}) + judge(3, "accept"), ["kept"]),
        (cut(1, {"a": 2}) + judge(2, "restore") + cut(3, {"b": 1}), ["taken back", "pending"]),
        (cut(1, {"a": 2}) + cut(2, {"b": 3}), ["kept", "kept"]),
        (cut(1, {"a": 2}) + cut(2, {"b": 1}) + judge(3, "restore"), ["taken back"] * 2),
        (judge(1, "keep"), []),
        ("", []),
        (None, []),
    ],
)
def test_each_cut_gets_the_judgement_that_follows_it(write, decisions, outcomes):
    assert [c.outcome for c in write(decisions).cuts] == outcomes


def test_a_cut_carries_what_was_expected_and_what_was_found(write):
    (found,) = write(cut(2, {"a": 2, "b": 6, "c": 0}) + judge(3, "accept")).cuts
    assert found.removed == {"a": 2, "b": 6}
    assert (found.filters_removed, found.round_num, found.decided_round) == (8, 2, 3)
    assert found.predicted == run_data.Points(-0.3, 0.1)
    assert found.measured == run_data.Points(-0.4, None)
    assert found.reason == "seen"


@pytest.mark.parametrize(
    ("decisions", "widths"),
    [
        (cut(2, {"a": 2, "b": 6}) + judge(3, "accept"), {"a": 6, "b": 10}),
        (cut(2, {"a": 2, "b": 6}) + judge(3, "restore"), {"a": 8, "b": 16}),
        (cut(3, {"b": 4}), {"a": 6, "b": 6}),
        (cut(3, {"b": 4}) + judge(3, "restore"), {"a": 6, "b": 10}),
    ],
)
def test_final_widths_count_what_happened_after_the_last_round(write, decisions, widths):
    assert write(decisions).final_widths() == widths


def test_traffic_adds_up_and_tolerates_blanks(write):
    run = write(None)
    assert run.traffic().tolist() == [16, 31, 41]
    assert run.traffic(dense=True).tolist() == [30, 60, 90]
    assert run.accuracy().to_dict("list") == {"round": [2, 3], "accuracy": [0.5, 0.6]}


def test_a_table_without_rows_is_no_table(write):
    run = write("", METRICS.splitlines()[0] + "\n")
    assert run.metrics is None and run.groups == [] and run.cuts == []


@pytest.mark.parametrize("text", ["round,parameters\n1,2\n", ""])
def test_a_damaged_table_is_named(write, text):
    with pytest.raises(UserError, match=r"metrics\.csv: expected"):
        write(None, text)


def test_a_run_that_did_not_finish_says_so(tmp_path):
    files.write_json(tmp_path / "config.json", {"config": {}})
    with pytest.raises(UserError, match=r"summary\.json is missing"):
        run_data.load(tmp_path)
