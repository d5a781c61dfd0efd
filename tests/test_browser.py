"""The report in a real browser: nothing cut off or overlapping, sorting, links, what axe finds; without torch."""

import os
import shutil

import pytest
from synthetic_runs import digits_runs, synthetic_run

from zoo.reporting import report

REQUIRED = os.environ.get("BROWSER_TESTS") == "required"
if REQUIRED:
    import playwright.sync_api as playwright
else:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None and not REQUIRED:
    pytest.skip("no chromium on the path: apt-get install chromium", allow_module_level=True)

EVIL = "<script>alert(1)</script>"
SMALL = {"steps": 40, "obs": 20, "seeds": 2}
WIDTHS = (1280, 1024, 768, 390)

# Texts whose box leaves the viewport or an ancestor that clips, or overlaps that of another text beside it.
MISPLACED = """() => {
  const found = [], boxes = [];
  const shown = (e) => e.checkVisibility({contentVisibilityAuto: true, visibilityProperty: true});
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, parent = node.parentElement;
    if (!node.data.trim() || parent.closest("script, style, title, svg") || !shown(parent)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) {
      const told = node.data.trim().slice(0, 40);
      if (box.left < -1 || box.right > innerWidth + 1) found.push(`beyond: ${told}`);
      for (let up = parent; up; up = up.parentElement) {
        if (getComputedStyle(up).overflowX === "visible" || up.matches("html, body")) continue;
        const clip = up.getBoundingClientRect();
        if (box.left < clip.left - 1 || box.right > clip.right + 1) found.push(`cut off: ${told}`);
      }
      boxes.push([box, told, parent]);
    }
  }
  const overlap = (all, by) => {
    all.sort((a, b) => a[0].top - b[0].top);
    for (let i = 0; i < all.length; i++)
      for (let j = i + 1; j < all.length && all[j][0].top < all[i][0].bottom - by; j++) {
        const [a, b] = [all[i], all[j]];
        if (a[2] === b[2] || a[0].left >= b[0].right - by || b[0].left >= a[0].right - by) continue;
        found.push(`overlap: ${a[1]} | ${b[1]}`);
      }
  };
  overlap(boxes, 5);
  for (const svg of document.querySelectorAll("svg")) {
    if (!shown(svg)) continue;
    const texts = [...svg.querySelectorAll("text")].filter((t) => t.textContent.trim() && shown(t));
    const panel = svg.closest("figure, article").getBoundingClientRect();
    const all = texts.map((t) => [t.getBoundingClientRect(), t.textContent.trim(), t]);
    for (const [box, told] of all)
      if (box.left < panel.left - 1 || box.right > panel.right + 1) found.push(`outside its picture: ${told}`);
    overlap(all, 4);
  }
  return found;
}"""


def pairs(count):
    """So many pairs on a table, one of which has a column whose name is a script."""
    columns = [EVIL, "alcohol", "od280/od315 of diluted wines"]
    names = ["gaussian-constrained", "gaussian-learned", "gmm", *(f"pair-{i}" for i in range(count))][:count]
    return [
        synthetic_run(name, level=-20.0 - i, images=False, columns=columns, constant=[0], data="wine",
                      extras=("calibration",) if count < 6 else (), ran_away="learned" in name, **SMALL)
        for i, name in enumerate(names)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] * (os.geteuid() == 0))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    made = {}

    def of(count):
        if count not in made:
            runs = digits_runs(extras=("calibration",), **SMALL) if count == 6 else pairs(count)
            if count == 6:
                runs.append(synthetic_run("gaussian-binned", level=-90, extras=(), **SMALL))
            made[count] = report(runs, tmp_path_factory.mktemp(f"pairs-{count}"), failures={"broken": EVIL})
        return made[count].as_uri()

    return of


@pytest.fixture
def opened(browser):
    """A page, of which no script may have complained once the test is over."""
    page, said = browser.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append("a dialog opened"), dialog.dismiss()))
    yield page
    page.close()
    assert said == []


@pytest.mark.parametrize("count", [1, 2, 6, 17])
def test_no_text_is_cut_off_or_lies_over_another(opened, reports, count):
    opened.goto(reports(count))
    opened.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true })")
    for width in WIDTHS:
        opened.set_viewport_size({"width": width, "height": 900})
        for theme in ("light", "dark"):
            opened.emulate_media(color_scheme=theme)
            assert opened.evaluate(MISPLACED) == [], (width, theme)
            assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth"), width


def test_a_click_sorts_by_a_column_and_another_turns_it_round(opened, reports):
    opened.goto(reports(2))
    table = opened.locator("#ranking table.sortable").first
    head = table.locator("thead th", has_text="held-out log-likelihood")

    def scores():
        cells = table.locator("tbody td[data-label='held-out log-likelihood'] b").all_inner_texts()
        return [float(cell.replace("\N{MINUS SIGN}", "-").replace(",", "")) for cell in cells]

    ranked = scores()
    head.get_by_role("button").click()
    assert scores() == sorted(ranked) != ranked
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").press("Enter")
    assert scores() == sorted(ranked, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"


def test_links_lead_somewhere_and_open_what_is_folded(opened, reports):
    opened.goto(reports(6))
    for link in opened.locator("a[href^='#']").all():
        target = opened.locator(f'[id="{link.get_attribute("href")[1:]}"]')
        assert target.count() == 1
    opened.get_by_role("link", name="Which rows are odd?").click()
    opened.wait_for_function("document.getElementById('odd-rows').open")
    assert opened.get_by_text("what costs it most").first.is_visible()


def test_a_name_that_is_a_script_stays_text(opened, reports):
    opened.goto(reports(2))
    assert opened.locator("script").count() == 1
    assert EVIL in opened.locator("body").inner_text()


def test_print_shows_what_is_folded(opened, reports):
    opened.goto(reports(2))
    part = opened.locator("#glossary dl")
    assert not part.is_visible()
    opened.emulate_media(media="print")
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert part.is_visible()


def test_everything_is_there_without_script(browser, reports):
    page = browser.new_page(java_script_enabled=False)
    page.goto(reports(2))
    assert page.locator("h1").inner_text().startswith("Use gaussian-constrained")
    assert page.locator("#ranking thead button").count() == 0
    page.close()


@pytest.mark.parametrize(("theme", "pairs"), [("light", 2), ("dark", 6)])
def test_axe_finds_nothing_serious(opened, reports, theme, pairs):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    opened.emulate_media(color_scheme=theme)
    opened.goto(reports(pairs))
    opened.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true })")
    found = axe.Axe().run(opened).response["violations"]
    bad = [each for each in found if each["impact"] in ("serious", "critical")]
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in bad] == []
