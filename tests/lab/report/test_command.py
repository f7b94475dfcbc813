"""hetero-report, from flags to files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hetero_common.records.rundir import METRICS_FILE
from hetero_lab.report import main
from support.sample_runs import evaluation_event, joined, round_event, write_run

Capture = pytest.CaptureFixture[str]

FIGURES = ["accuracy-over-payload.png", "accuracy-over-rounds.png"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    events = [joined(), *(e(r) for r in range(2) for e in (round_event, evaluation_event))]
    return write_run(tmp_path / "run", events)


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_run_has_its_report_within(run: Path, capsys: Capture) -> None:
    assert main([str(run)]) == 0
    assert files(run / "report") == [*FIGURES, "report.html"]
    assert capsys.readouterr().out == f"the report is {run / 'report' / 'report.html'}\n"


def test_a_report_can_be_elsewhere_and_replaces_an_older_one(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "a" / "b"
    assert main([str(run), "--output", str(output)]) == 0
    (output / "report.html").write_text("old")
    assert main([str(run), "--output", str(output)]) == 0
    assert files(output) == [*FIGURES, "report.html"]
    assert (output / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert not (run / "report").exists()


def test_several_runs_are_compared_under_their_labels(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert main([str(run), str(run), "--labels", "this, <that>", "--output", str(output)]) == 0
    assert files(output) == [*FIGURES, "report.html"]
    assert "<title>Comparison of 2 runs: this, &lt;that&gt;</title>" in (
        output / "report.html"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((), "no run to report on: name run directories"),
        (("RUN", "RUN"), "a comparison needs a directory of its own: give --output"),
        (("RUN", "--labels", "a"), "--labels names the runs of a comparison: name several runs"),
        (
            ("RUN", "RUN", "--output", "OUT", "--labels", "a,b,c"),
            "--labels names 3 of 2 runs: give one label for each, separated by commas",
        ),
        (
            ("RUN", "--audit", "--output", "OUT"),
            "--audit makes no page: leave --output and --labels out",
        ),
        (("RUN", "--output", "FILE"), "--output FILE cannot be written: File exists"),
        (("RUN", "--output", "FILE/x"), "--output FILE/x cannot be written: Not a directory"),
    ],
)
def test_wrong_flags_are_bad_input(
    flags: tuple[str, ...], sentence: str, run: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "file").write_text("")
    names = {"RUN": run, "OUT": tmp_path / "out", "FILE": tmp_path / "file"}
    for name, path in names.items():
        flags = tuple(flag.replace(name, str(path)) for flag in flags)
        sentence = sentence.replace(name, str(path))
    assert main(list(flags)) == 2
    assert capsys.readouterr().err == f"hetero-report: {sentence}\n"
    assert not (tmp_path / "out").exists() and not (run / "report").exists()


def test_of_damaged_runs_nothing_is_written(run: Path, tmp_path: Path, capsys: Capture) -> None:
    bad = write_run(tmp_path / "bad", [joined(), round_event(0), evaluation_event(0, samples=0)])
    output = tmp_path / "out"
    assert main([str(run), str(bad), "--output", str(output)]) == 1
    assert capsys.readouterr().err == (
        f"hetero-report: {bad / METRICS_FILE} is damaged: an event lacks what docs/runs.md says "
        "it has\n"
    )
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"hetero-report: {tmp_path} is no run directory: it has no valid plan.json\n"
    )
    assert not output.exists() and not (tmp_path / "report").exists()


def test_no_other_command_waits_for_matplotlib() -> None:
    script = (
        "import sys, hetero_lab.__main__, hetero_lab.reference, hetero_lab.report; "
        "print('matplotlib' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


def test_without_matplotlib_a_sentence_says_how_to_get_it(
    run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "hetero_lab.report.drawing", raising=False)
    monkeypatch.delattr("hetero_lab.report.drawing", raising=False)
    assert main([str(run)]) == 2
    assert capsys.readouterr().err == (
        "hetero-report: figures are drawn by matplotlib: pip install hetero-splitee[report]\n"
    )
    assert not (run / "report").exists()
