"""Pairs from installed packages: listed, trained, and missed with a word where they are not there."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from programs import forked
from typer.testing import CliRunner

import zoo
from zoo import plugins
from zoo.command_line import app
from zoo.errors import OptionError, RunError
from zoo.plugins import how_to_get, load_installed, origin
from zoo.scaffold import write_package

ROOT = Path(zoo.__file__).parent.parent


def installed(package, place, entry=""):
    """Put a package where Python finds it, as an installer would, without asking an index for one."""
    (module,) = (package / "src").iterdir()
    (place / module.name).symlink_to(module)
    about = place / f"{module.name}-0.1.0.dist-info"
    about.mkdir()
    name = module.name.replace("_", "-")
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    (about / "top_level.txt").write_text(module.name)
    (about / "entry_points.txt").write_text(f"[vae_zoo.pairs]\n{module.name} = {entry or module.name}\n")


def python(*arguments, path, **given):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (path, ROOT))), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, **given)


def command(*lines, path, told):
    """What a process that finds packages in a place too ends with, and what it said on stdout and stderr."""

    def work():
        sys.path.insert(0, str(path))
        plugins._loaded.clear()
        for known in (plugins._points, plugins._packages):
            known.cache_clear()
        sys.stdout, sys.stderr = (told.with_suffix(kind).open("w", buffering=1) for kind in (".out", ".err"))
        for line in lines:
            app(list(map(str, line)), standalone_mode=line is lines[-1])

    process = forked(work)
    process.join(120)
    return process.exitcode, told.with_suffix(".out").read_text(), told.with_suffix(".err").read_text()


COMMAND = ("-c", "from zoo.command_line import main; main()")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """What `zoo new` writes."""
    place = tmp_path_factory.mktemp("packages") / "vae-zoo-round-top"
    told = CliRunner().invoke(app, ["new", "round-top", "--out", str(place)])
    assert told.exit_code == 0 and f"pip install {place}" in told.output
    return place


def test_a_package_passes_its_tests_as_written(package, tmp_path):
    installed(package, tmp_path)
    ran = python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(package / "tests"), path=tmp_path, cwd=package)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_an_installed_package_is_listed_and_used_and_missed(package, tmp_path):
    place, data, run = tmp_path / "site", tmp_path / "numbers.csv", tmp_path / "run"
    place.mkdir()
    installed(package, place)
    data.write_text("a,b\n" + "\n".join(f"{i * 37 % 101 / 7:.3f},{i * 53 % 97 / 5:.3f}" for i in range(60)))
    train = ("train", "round-top", "--data", data, "--steps", 5, "--seeds", 1, "--out", run, "--quiet")
    lists = ("list", "round*"), ("list", "round*", "--json")
    status, out, said = command(*lists, train, path=place, told=tmp_path / "first")
    assert status == 0, said
    words, bracket, more = out.partition("[")
    assert "(vae-zoo-round-top 0.1.0)" in words
    (card,), _ = json.JSONDecoder().raw_decode(bracket + more)
    assert (card["name"], card["package"]) == ("round-top", "vae-zoo-round-top 0.1.0")
    drawn = ("sample", run, "-n", 5, "--out", tmp_path / "drawn.csv")
    status, _, said = command(drawn, path=place, told=tmp_path / "second")
    assert status == 0 and (tmp_path / "drawn.csv").is_file(), said
    status, _, said = command(("evaluate", run), path=tmp_path, told=tmp_path / "third")
    assert status == 2
    assert "To load it, install vae-zoo-round-top 0.1.0, which is not here." in " ".join(said.split())


def test_a_package_that_cannot_be_imported_is_one_line_and_no_more(package, tmp_path):
    installed(package, tmp_path, entry="vae_zoo_round_top.not_there")
    listed = python(*COMMAND, "list", "gmm*", path=tmp_path)
    assert listed.returncode == 0 and "gmm-ratio" in listed.stdout
    (line,) = [line for line in listed.stderr.splitlines() if "left out" in line]
    assert "the pairs of vae-zoo-round-top are left out: vae_zoo_round_top.not_there cannot be imported" in line


def test_nothing_is_imported_twice():
    load_installed()
    load_installed()
    assert origin(zoo.create) == ""
    assert origin(test_nothing_is_imported_twice) == __file__


def test_what_is_missing_is_said_with_what_to_do():
    assert how_to_get([]) == ""
    here = how_to_get(["package vae-zoo 0.0.1"])
    assert here == f"install vae-zoo 0.0.1: here is {zoo.__version__}"


@pytest.mark.parametrize("name", ["Round", "round top", "3d", "class", "-x", ""])
def test_a_name_that_no_pair_can_have_is_refused(name, tmp_path):
    with pytest.raises(OptionError, match="use lower-case words and numbers joined by hyphens"):
        write_package(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_with_something_in_it_stays(tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(RunError, match="exists and is not empty; choose another place with --out"):
        write_package("round-top", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


@pytest.mark.slow
def test_pip_installs_what_is_written(package, tmp_path):
    """In an environment of its own, which borrows what this one has installed."""
    venv.create(tmp_path / "env", with_pip=True)
    binaries = tmp_path / "env" / "bin"
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text("\n".join([*(p for p in sys.path if p.endswith("site-packages")), str(ROOT)]))
    subprocess.run([binaries / "pip", "install", "--quiet", "--no-deps", str(package)], check=True)
    main = "from zoo.command_line import main; main()"
    listed = subprocess.run([binaries / "python", "-c", main, "list", "round*"], capture_output=True, text=True)
    assert "(vae-zoo-round-top 0.1.0)" in listed.stdout
    compared = subprocess.run(
        [binaries / "python", "-c", main, "compare", "round-top", "gmm-constrained", "--data", "iris", "--steps", "20",
         "--seeds", "2", "--samples", "50", "--out", str(tmp_path / "out"), "--quiet"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert compared.returncode == 0, compared.stderr
    assert "round-top" in compared.stdout
