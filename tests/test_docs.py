"""The documentation's examples run, its commands parse, its links lead somewhere, and every pair has a page."""

import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

import zoo

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OF_THE_BUILD = [*(DOCS / "_build").rglob("*.md"), DOCS / "api" / "command-line.md"]
OF_THE_BUILD += [file for file in (DOCS / "catalogue").glob("*.md") if file.stem != "index"]
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted({*DOCS.rglob("*.md")} - {*OF_THE_BUILD})]
EXAMPLE = re.compile(r"```(?:python|\{code-cell\})\n(?::tags:.*\n)?(.*?)```", re.S)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
COPIED = "@dataclass(frozen=True)\nclass SoftLaplaceOptions"  # which runs as scripts/own_pair.py


def examples(file):
    found = EXAMPLE.findall(file.read_text(encoding="utf-8"))
    return [code for code in found if not code.startswith(COPIED)]


PAGES = [file for file in WRITTEN if examples(file)]


@pytest.fixture(scope="module")
def trained():
    """Each pair that an example trains, once: the pages share them."""
    return {}


@pytest.fixture(scope="module")
def first_example(trained, tmp_path_factory):
    """The names that the page to begin with leaves behind, which the others go on from."""
    return {"folder": tmp_path_factory.mktemp("docs"), "names": {"zoo": zoo}}


@pytest.fixture
def quick(monkeypatch, trained, quick_scores, blank_pictures, catalogue):
    """Fits of a few steps and scores of few draws, each made once."""
    scores = importlib.import_module("zoo.evaluation.imputation")
    monkeypatch.setattr(scores, "ROWS", 10)
    monkeypatch.setattr(scores, "WIDEST", 1)  # columns for the iterative imputer, which takes seconds
    fit, evaluate = zoo.fit, zoo.evaluate

    def fit_once(pair, data, *, objective=None, **slow):
        key = (pair.name, str(pair.options), data.name, objective)
        if key not in trained:
            trained[key] = fit(pair, data, objective=objective, seeds=1, steps=2, compile="off", progress=False)
        return trained[key]

    def evaluate_once(run, data, **slow):
        if "heldout" not in run.tree.children:
            evaluate(run, data, samples=20, temperatures=0, rows=20, reference=0)

    monkeypatch.setattr(zoo, "fit", fit_once)
    monkeypatch.setattr(zoo, "evaluate", evaluate_once)


def run(file, names):
    with torch.random.fork_rng():  # which a reader's own Pyro programs draw from
        for code in examples(file):
            exec(compile(code, str(file.relative_to(ROOT)), "exec"), names)


@pytest.fixture
def reader(quick, first_example, monkeypatch):
    """Somebody who has read the first page, in the folder where its example ran."""
    monkeypatch.chdir(first_example["folder"])
    names = first_example["names"]
    if "whole" not in names:
        run(DOCS / "start.md", names)
    return dict(names)


def test_the_first_example_does_what_it_says(reader):
    assert not reader["whole"].isna().any(axis=None)
    assert zoo.load_run("runs/constrained").pair.options.real == "constrained"
    assert Path("report/index.html").is_file()
    assert reader["draws"].shape[:2] == (1, 20)


@pytest.mark.parametrize("file", [page for page in PAGES if page.stem != "start"], ids=lambda file: file.stem)
def test_the_examples_run(file, reader):
    run(file, reader)


def test_the_pair_of_ones_own_is_the_script():
    copied = re.search(r"```python\n(@dataclass.*?)```", (DOCS / "extending.md").read_text(encoding="utf-8"), re.S)[1]
    script = (ROOT / "scripts" / "own_pair.py").read_text(encoding="utf-8")
    assert copied.strip() in script, "copy it from scripts/own_pair.py"


def commands():
    for file in WRITTEN:
        text = file.read_text(encoding="utf-8")
        for block in re.findall(r"```sh\n(.*?)```", text, re.S):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0].endswith(("zoo", "/zoo")):
                    yield file.name, words[1:]


def test_the_commands_parse():
    from typer.main import get_command

    from zoo.command_line import app

    known = get_command(app).commands
    found = list(commands())
    assert len(found) > 8
    for _, (name, *arguments) in found:
        known[name].make_context(name, list(arguments))  # raises where an option or an argument is not one
    text = "\n".join(file.read_text(encoding="utf-8") for file in WRITTEN)
    assert set(re.findall(r"`zoo (\w+)[ `]", text)) <= set(known)


def test_links_between_files_lead_somewhere():
    for file in WRITTEN:
        text = re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)#\s]+\.(?:md|png))(?:#[^)]*)?\)", text):
            if "://" not in target:
                place = file.parent / target
                generated = place.parent.name == "catalogue" and place.stem in zoo.list_pairs()
                assert place.is_file() or generated or place.name == "command-line.md", f"{file.name}: {target}"


def load(file):
    spec = importlib.util.spec_from_file_location(f"docs_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generated():
    return load(DOCS / "_ext" / "generated.py")


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    there = '<p id="here"></p><a href="b.html#there"></a><a href="https://example.org"></a>'
    (tmp_path / "a.html").write_text(f'{there}<a href="#gone"></a><img src="lost.svg"><a href="b.html#lost"></a>')
    (tmp_path / "b.html").write_text('<p id="there"></p><a href="a.html#here"></a>')
    found = load(DOCS / "check_links.py").broken(tmp_path)
    assert found == ["a.html: #gone", "a.html: b.html#lost", "a.html: lost.svg"]


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="no Chromium")
def test_a_screenshot_has_the_width_and_the_theme(tmp_path):
    from PIL import Image

    page = "<style>body{background:#fff} @media (prefers-color-scheme: dark) {body{background:#000}}</style>"
    (tmp_path / "page.html").write_text(page)
    load(ROOT / "scripts" / "screenshots.py").take(tmp_path / "page.html", tmp_path / "dark.png", (390, 200), 0)
    with Image.open(tmp_path / "dark.png") as picture:
        assert picture.size == (390, 200)
        assert picture.convert("RGB").getpixel((380, 190)) == (0, 0, 0)


def test_every_pair_has_a_page_with_its_claims(generated):
    names = [name for name in zoo.list_pairs() if not zoo.catalogue.package_of(name)]
    assert list(generated.ADVICE) == names
    table = generated.table()
    for name in names:
        page, card = generated.page(name), zoo.card(name)
        assert f"]({name}.md)" in table
        assert card.summary in page and generated.tex(card.formula) in page and card.reference in page
        assert all(f"`{name}[preset={preset.name}]`" in page for preset in card.presets)
        assert card.bounded_if in page


@pytest.mark.parametrize(
    ("formula", "tex"),
    [
        ("p(x|z) = N(x; μ(z), σ² I)", r"p(x\mid z) = \mathcal{N}(x; μ(z), σ^{2} I)"),
        ("∏ⱼ yⱼ(z)^xⱼ (1-yⱼ(z))^(1-xⱼ)", r"\prod_{j} y_{j}(z)^{x_{j}} (1-y_{j}(z))^{1-x_{j}}"),
        ("p(x) = Σ_c π_c N(x; μ_c, Σ_c)", r"p(x) = \sum_c π_c \mathcal{N}(x; μ_c, Σ_c)"),
        ("-D log(smallest √(2π))", r"-D \mathrm{log}(\mathrm{smallest}\, \sqrt{2π})"),
    ],
)
def test_formulas_are_typeset(generated, formula, tex):
    assert generated.tex(formula) == tex


def test_formulas_have_no_sign_that_is_not_tex(generated):
    for name in zoo.list_pairs():
        text = generated.tex(zoo.card(name).formula) + generated.tex(zoo.card(name).bound)
        assert not set(text) & set("∏∫√≤∣²⁻ⱼₖ₁"), name
        assert text.count("{") == text.count("}"), name
