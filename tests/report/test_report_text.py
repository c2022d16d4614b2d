import pytest

from tff_autoprune.report import text


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (text.integer, (56126,), "56,126"),
        (text.integer, (None,), "–"),
        (text.si, (7_530_000, "FLOP"), "7.53 MFLOP"),
        (text.si, (56_126, "B"), "56.1 kB"),
        (text.si, (999_999, "B"), "1000 kB"),
        (text.si, (152_500_000, ""), "152 M"),
        (text.si, (12, "B"), "12 B"),
        (text.milliseconds, (12.34,), "12.3 ms"),
        (text.milliseconds, (0.0123,), "12.3 µs"),
        (text.percent, (0.8125,), "81.2 %"),
        (text.signed, (-0.1234, 3), "−0.123"),
        (text.change, (200, 50), "−75 %"),
        (text.change, (100, 150), "+50 %"),
        (text.change, (0, 50), "–"),
        (text.times, (1.94,), "1.9×"),
        (text.times, (12.4,), "12×"),
        (text.seconds, (4.21,), "4.2 s"),
        (text.seconds, (200,), "3 min 20 s"),
        (text.seconds, (7500,), "2 h 5 min"),
    ],
)
def test_numbers_read_well(function, arguments, expected):
    assert function(*arguments) == expected
