"""The report's page as a browser has it: one file, in the light, in the dark, on a phone, on paper, read aloud."""

import pytest

from kfusion.reporting.page import report
from tests.pages import Page, Visit


def test_the_page_is_one_small_file_that_names_no_other(whole):
    path = whole / "report.html"
    assert path.stat().st_size < 5_000_000
    page = Page(path)
    sources = [values.get(name) for _, values in page.elements for name in ("src", "href") if name in values]
    assert all(source and source.startswith(("data:", "#")) for source in sources)
    assert not {"script", "iframe", "object", "base"} & {tag for tag, _ in page.elements}


def test_every_picture_has_an_alternative_text_and_every_table_its_headers(whole):
    page = Page(whole / "report.html")
    assert len(page.having("img")) >= 12
    assert all(len(image.get("alt") or "") > 30 for image in page.having("img"))
    assert {head["scope"] for head in page.having("th")} == {"row", "col"}
    named = {values.get("id") for _, values in page.elements}
    assert all(table["aria-labelledby"] in named for table in page.having("table"))
    assert [len(page.having(tag)) for tag in ("h1", "main", "header", "nav", "footer")] == [1] * 5


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_a_browser_finds_no_fault(whole, browser, scheme):
    address = (whole / "report.html").as_uri()
    with Visit(browser, address, scheme=scheme) as visit:
        visit.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert visit.violations() == []
        assert visit.complaints == []
        assert [url for url in visit.requests if not url.startswith(("file:", "data:"))] == []
        assert [url for url in visit.requests if url.startswith("file:")] == [address]
        broken = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
        assert visit.page.evaluate(broken) == 0


@pytest.mark.parametrize("name", ["whole", pytest.param("bare", marks=pytest.mark.slow)])
def test_nothing_overflows_a_phone_in_the_dark(name, browser, request):
    folder = request.getfixturevalue(name)
    path = folder / "report.html"
    address = (path if path.exists() else report(folder)).as_uri()
    with Visit(browser, address, width=360, scheme="dark") as visit:
        visit.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert visit.overflow() == 0
        assert visit.violations() == []


def test_on_paper_nothing_is_cut_off_or_folded(whole, browser):
    with Visit(browser, (whole / "report.html").as_uri(), width=718) as visit:  # A4 but for its margins
        hidden = "[...document.querySelectorAll('details > *')].filter(each => !each.checkVisibility()).length"
        assert visit.page.evaluate(hidden) > 0
        visit.page.emulate_media(media="print")
        assert visit.page.evaluate(hidden) == 0
        wide = "[...document.querySelectorAll('img, table')].filter(each => each.getBoundingClientRect().right > 718)"
        assert visit.page.evaluate(f"{wide}.map(each => each.alt || each.textContent.trim().slice(0, 40))") == []
        assert visit.overflow() == 0


def test_the_check_for_violations_finds_one(browser, tmp_path):
    (tmp_path / "bad.html").write_text("<html><body><img src='data:,'><p style='color:#ccc'>pale</p></body></html>")
    with Visit(browser, (tmp_path / "bad.html").as_uri()) as visit:
        rules = {line.split(":")[0] for line in visit.violations()}
    assert {"image-alt", "color-contrast", "html-has-lang"} <= rules
