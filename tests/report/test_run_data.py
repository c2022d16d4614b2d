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
HEADER = "round,action,reason,removed,factorized,parameters,measured_points,measured_error\n"


def decided(round_num, removed, action="move"):
    groups = json.dumps(removed).replace('"', '""')
    return f'{round_num},{action},seen,"{groups}",{{}},60,-0.4,0.1\n'


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
        (decided(2, {"a": 2}), ["kept"]),
        (decided(1, {"a": 2}, "refuse") + decided(3, {"b": 1}), ["refused", "kept"]),
        (decided(1, {}, "stop"), []),
        ("", []),
        (None, []),
    ],
)
def test_moves_are_kept_or_refused(write, decisions, outcomes):
    assert [c.outcome for c in write(decisions).cuts] == outcomes


def test_a_move_carries_what_was_found(write):
    (found,) = write(decided(2, {"a": 2, "b": 6, "c": 0})).cuts
    assert found.removed == {"a": 2, "b": 6}
    assert (found.filters_removed, found.round_num) == (8, 2)
    assert found.measured == run_data.Points(-0.4, 0.1)
    assert found.reason == "seen"


@pytest.mark.parametrize(
    ("decisions", "widths"),
    [
        (decided(2, {"a": 2, "b": 6}), {"a": 6, "b": 10}),
        (decided(3, {"b": 4}), {"a": 6, "b": 6}),
        (decided(3, {"b": 4}, "refuse"), {"a": 6, "b": 10}),
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
