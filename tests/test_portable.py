"""What a system lends: locks, memory, places in a file, and a process to open what may be damaged."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import psutil
import pytest
import xarray
from synthetic_runs import synthetic_run

import zoo
from zoo import storage
from zoo.errors import DataError, RunError
from zoo.storage import InUse, check_opens, digest, free_memory, locked, read_tree
from zoo.tables import InFile

HOLDER = """
import sys, time
from pathlib import Path
from zoo.storage import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a place."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_one_process_holds_a_place_until_it_is_gone_however_it_went(holder, tmp_path):
    with (
        pytest.raises(InUse, match=f"another process is writing {tmp_path}/run: wait for it"),
        locked(tmp_path / "run"),
    ):
        pass
    with locked(tmp_path / "run", "task"), locked(tmp_path / "other"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_place_is_not_held_twice_by_one_process(tmp_path):
    with locked(tmp_path / "run"), pytest.raises(InUse), locked(tmp_path / "run"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot write"), locked(tmp_path / "file" / "run"):
        pass


def test_the_memory_that_is_free_is_some_of_what_there_is(monkeypatch):
    assert 0 < free_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 12_345}))
    assert free_memory() == 12_345


def test_threads_read_where_a_file_can_only_be_read_from_where_it_stands(tmp_path, monkeypatch):
    table = np.random.default_rng(0).normal(size=(5000, 3))
    table.tofile(tmp_path / "table")
    monkeypatch.delattr(os, "preadv")
    with (tmp_path / "table").open("rb") as file, ThreadPoolExecutor(4) as threads:
        stored = InFile(file, 0, table.shape, table.dtype)
        scattered = [np.random.default_rng(seed).permutation(5000)[:400] for seed in range(40)]
        for rows, found in zip(scattered, threads.map(stored.__getitem__, scattered), strict=True):
            assert np.array_equal(found, table[rows])
        assert np.array_equal(stored[10:4000], table[10:4000])


WITHOUT = """
import os, sys
import filelock, pandas, psutil  # have their own ways
for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None
for name in ("fork", "getuid", "killpg", "mkfifo", "preadv", "pread", "sched_getaffinity", "sysconf"):
    delattr(os, name)
from pathlib import Path
import zoo
from zoo.storage import free_memory, locked, write_file
place = Path(sys.argv[1])
assert free_memory() > 0
with locked(place / "table.csv"):
    write_file(place / "table.csv", b"a,b\\n" + b"".join(b"%d,%d\\n" % (row, row % 7) for row in range(60)))
assert zoo.load_data(place / "table.csv").features == 2
"""


def test_nothing_is_asked_of_a_system_that_windows_has_not(tmp_path):
    """As far as that can be seen here: what only POSIX has is not imported and not called where files are handled."""
    subprocess.run([sys.executable, "-c", WITHOUT, tmp_path], check=True)


@pytest.fixture
def table(tmp_path):
    file = tmp_path / "table.nc"
    x = xarray.Dataset({"x": (("obs", "feature"), np.random.default_rng(0).normal(size=(40, 3)))})
    x.to_netcdf(file, engine="h5netcdf")
    return file


def test_a_file_that_keeps_the_library_busy_is_given_up(table, monkeypatch):
    assert zoo.load_data(table).features == 3
    monkeypatch.setattr(storage, "LISTING", "import time; time.sleep(60)")
    monkeypatch.setattr(storage, "OPENING", 0.2)
    started = time.monotonic()
    with pytest.raises(DataError, match=r"table\.nc: was not open after 0 seconds: it is damaged"):
        zoo.load_data(table)
    assert time.monotonic() - started < 30


def test_a_file_that_breaks_the_library_breaks_another_process(table, monkeypatch):
    monkeypatch.setattr(storage, "LISTING", "import os; os.abort()")
    with pytest.raises(DataError, match=r"table\.nc: cannot be opened, it is damaged: the process that opened it died"):
        zoo.load_data(table)


def test_a_damaged_file_says_what_the_library_says(table):
    content = bytearray(table.read_bytes())
    content[len(content) // 3 :] = b""
    table.write_bytes(content)
    with pytest.raises(OSError, match="truncated file") as theirs:
        h5py.File(table)
    with pytest.raises(DataError) as ours:
        check_opens(table)
    assert str(theirs.value) in str(ours.value)


def test_hdf5_never_meets_a_run_whose_checksum_is_another(tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    tree = synthetic_run(evaluated=False, seeds=2, steps=40, images=False)
    content = bytearray(tree.to_netcdf(engine="h5netcdf"))
    (run / "run.nc").write_bytes(content)
    (run / "run.json").write_text(json.dumps({"sha256": {"run.nc": digest(bytes(content))}}))
    xarray.testing.assert_equal(read_tree(run / "run.nc"), tree)
    content[len(content) // 2] ^= 1
    (run / "run.nc").write_bytes(content)
    monkeypatch.setattr(xarray, "open_datatree", None)
    with pytest.raises(RunError, match=r"it is damaged: its checksum differs from run\.json"):
        zoo.compare(run)
    (run / "run.json").write_text("{")
    with pytest.raises(RunError, match=r"run\.json next to it is damaged"):
        zoo.compare(run)
