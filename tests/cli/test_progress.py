"""Progress bars on a terminal, plain lines in a log."""

from __future__ import annotations

import io

from rich.console import Console

from fedlens.cli.progress import PlainLines, shown


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_log_gets_few_lines_without_control_characters() -> None:
    stream = io.StringIO()

    with shown(Console(file=stream)) as progress:
        for done in range(10_001):
            progress("import chest_xray", done, 10_000)

    lines = stream.getvalue().splitlines()
    assert lines[0] == "import chest_xray: 0 of 10,000"
    assert lines[-1] == "import chest_xray: 10,000 of 10,000"
    assert len(lines) < 10
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_gets_bars() -> None:
    stream = io.StringIO()

    with shown(Console(file=stream, force_terminal=True, width=100)) as progress:
        progress("prepare", 1, 2)
        progress("audit", 5, 0)
        progress("prepare", 2, 2)

    assert "prepare" in stream.getvalue()
    assert "2/2" in stream.getvalue()
    assert "audit" in stream.getvalue()


def test_lines_of_one_step_keep_their_distance() -> None:
    clock, lines = _Clock(), list[str]()
    progress = PlainLines(lines.append, seconds=5, clock=clock)

    for second in range(12):
        clock.now = second
        progress("train", second, 100)

    assert lines == ["train: 0 of 100", "train: 5 of 100", "train: 10 of 100"]


def test_the_end_is_said_at_once_but_a_step_that_ends_every_round_only_now_and_then() -> None:
    clock, lines = _Clock(), list[str]()
    progress = PlainLines(lines.append, seconds=5, clock=clock)

    for round_number in range(4):
        for done in range(3):
            clock.now = 2 * round_number + done / 10
            progress("training", done, 2)

    assert lines == ["training: 0 of 2", "training: 2 of 2", "training: 0 of 2"]


def test_steps_do_not_silence_each_other() -> None:
    clock, lines = _Clock(), list[str]()
    progress = PlainLines(lines.append, seconds=5, clock=clock)

    progress("rounds", 1, 10)
    progress("training", 1, 4)

    assert lines == ["rounds: 1 of 10", "training: 1 of 4"]


def test_a_total_that_is_not_known_is_not_made_up() -> None:
    lines: list[str] = []

    PlainLines(lines.append)("scan", 1200, 0)

    assert lines == ["scan: 1,200"]
