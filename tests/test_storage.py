"""A place that fills up gets whole files or none, and nothing that was there or computed is lost."""

import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

import zoo
from zoo import storage
from zoo.command_line import app
from zoo.errors import RunError
from zoo.storage import write_directory, write_file

HOW = {"steps": 40, "seeds": 2, "checks": 4, "progress": False, "compile": "off"}


@contextmanager
def little_space(limit=2000):
    """The system refuses files beyond so many bytes, as it does when a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def run(iris):
    return zoo.fit(zoo.create("gaussian-constrained", iris), iris, **HOW)


def test_a_file_or_a_directory_is_written_whole_or_not_at_all(tmp_path):
    write_file(tmp_path / "file", b"before")
    write_directory(tmp_path / "a" / "folder", {"one": b"1", "two": b"2"})
    before = contents(tmp_path)
    assert before == {"file": b"before", "a/folder/one": b"1", "a/folder/two": b"2"}
    with little_space():
        with pytest.raises(OSError, match="too large"):
            write_file(tmp_path / "file", bytes(3000))
        with pytest.raises(RunError, match=r"cannot write .*folder: File too large"):
            write_directory(tmp_path / "a" / "folder", {"three": b"3", "two": bytes(3000)})
    assert contents(tmp_path) == before
    write_directory(tmp_path / "a" / "folder", {"three": b"3"})
    assert contents(tmp_path / "a") == {"folder/three": b"3"}


def test_a_directory_is_not_lost_between_the_two(tmp_path, monkeypatch):
    write_directory(tmp_path / "folder", {"one": b"1"})
    replace, moves = Path.replace, []

    def interrupted(self, target):
        moves.append(target)
        if len(moves) == 2:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_directory(tmp_path / "folder", {"two": b"2"})
    assert contents(tmp_path) == {"folder/one": b"1"}


@pytest.mark.parametrize("limit", [0, 2000, 12_000])  # the weights do not fit in, or the traces
def test_a_run_is_saved_whole_or_not_at_all(limit, run, tmp_path):
    run.save(tmp_path / "run")
    before = contents(tmp_path)
    for name in ("run", "new"):
        with little_space(limit), pytest.raises(RunError, match=f"cannot write {tmp_path}/{name}: File too large"):
            run.save(tmp_path / name)
    assert contents(tmp_path) == before


def test_a_fit_goes_on_without_space_and_is_not_lost(run, iris, tmp_path, caplog):
    with little_space():
        kept = zoo.fit(run.pair, iris, checkpoint=tmp_path / "run", **HOW)
    assert kept.differences(run) == []
    first, last = caplog.messages
    assert "no checkpoint from step" in first
    assert "cannot write" in last and "only in memory" in last
    assert set(contents(tmp_path)) == {"run/fit.json"}
    assert zoo.fit(run.pair, iris, checkpoint=tmp_path / "run", **HOW).differences(run) == []


def test_a_place_without_any_space_is_refused_before_training(run, iris, tmp_path):
    with little_space(0), pytest.raises(RunError, match="cannot write"):
        zoo.fit(run.pair, iris, checkpoint=tmp_path / "run", **HOW)
    assert not list(tmp_path.iterdir())


def test_a_report_is_written_whole_or_not_at_all(run, tmp_path):
    zoo.report(run, tmp_path / "report")
    before = contents(tmp_path)
    for name in ("report", "new"):
        with little_space(50_000), pytest.raises(RunError, match="cannot write a report to"):
            zoo.report(run, tmp_path / name)
    assert contents(tmp_path) == before


def test_the_command_says_how_to_go_on(tmp_path):
    place, shell = tmp_path / "run", CliRunner()
    with little_space():
        ended = shell.invoke(app, f"train gmm --data iris --steps 40 --seeds 2 --compile off --quiet --out {place}")
    told = f"error: cannot write {place}: File too large. Once it can be, `zoo train --resume {place}` continues.\n"
    assert (ended.exit_code, ended.stderr.endswith(told)) == (2, True), ended.output
    assert shell.invoke(app, f"train --resume {place} --quiet").exit_code == 0
    assert zoo.load_run(place).seeds == (0, 1)


def test_what_was_freed_is_given_back_where_the_process_has_grown(monkeypatch):
    resident, asked = iter([10, 10, 10 + storage.HOLES, 11 + storage.HOLES, 12]), []
    monkeypatch.setattr(storage, "_GROWN_FROM", [10])
    monkeypatch.setattr(storage, "_resident", lambda: next(resident))
    monkeypatch.setattr(storage, "_trim", asked.append)
    for _ in range(4):
        storage.give_back()
    assert asked == [0] and storage._GROWN_FROM == [12]
