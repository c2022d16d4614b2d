"""The report in a real browser: no errors, no requests, the figures of summary.json."""

import json
import shutil
import time

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tff_autoprune.report import write
from tff_autoprune.run_directory import RunDirectory

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)",
)
WIDTHS = {"wide": 1280, "phone": 390}
# The contrast that WCAG 2 asks of normal text (level AA).
MINIMUM_CONTRAST = 4.5


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def open_page(browser, path, width=1280, dark=False):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(path.as_uri())
    deadline = time.monotonic() + 30
    while not drawn(browser) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert drawn(browser)


def drawn(browser):
    """Whether every chart of the page has its axes."""
    return browser.execute_script(
        "const charts = [...document.querySelectorAll('.chart')];"
        "return charts.length > 0 && charts.every(c => c.querySelector('.role-axis-label text'));"
    )


def requested(browser):
    events = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    import sample_run

    path = tmp_path_factory.mktemp("browser") / "run"
    shutil.copytree(sample_run.exported(tmp_path_factory), path)
    return RunDirectory(path)


@pytest.fixture(scope="module")
def report(run):
    return write.write_report(run.path).directory.report


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", list(WIDTHS.values()), ids=list(WIDTHS))
def test_it_opens_without_errors_requests_or_sideways_scrolling(browser, report, width, dark):
    open_page(browser, report, width, dark)
    assert browser.get_log("browser") == []
    urls = requested(browser)
    assert urls and all(url.startswith(("file:", "data:", "blob:")) for url in urls)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return document.documentElement.dataset.theme") == (
        "dark" if dark else "light"
    )


def test_its_figures_are_those_of_the_summary(browser, report, run):
    open_page(browser, report)
    summary = run.read_summary()
    shown = browser.execute_script(
        "return [...document.querySelectorAll('data[data-path]')]"
        ".map(e => [e.dataset.path, e.value, e.innerText]);"
    )
    paths = {path for path, _, _ in shown}
    assert {
        "pruned/parameters",
        "dense/flops",
        "accuracy/test",
        "benchmark/pruned/latency_ms_median",
        "export/pruned.full_int8/bytes",
        "communication/dense_equivalent_bytes",
    } <= paths
    for path, value, words in shown:
        expected = summary
        for step in path.split("/"):
            expected = expected[step]
        assert float(value) == expected, path
        assert words.strip()
    charts = json.loads(browser.find_element(By.ID, "charts").get_attribute("textContent"))
    rounds = charts["training"]["datasets"]["rounds"]
    assert rounds[0]["parameters"] == summary["dense"]["parameters"]
    assert rounds[-1]["parameters"] == summary["pruned"]["parameters"]


def test_the_button_changes_the_colours_of_page_and_charts(browser, report):
    open_page(browser, report)

    def colours():
        return browser.execute_script(
            "return [getComputedStyle(document.body).backgroundColor,"
            " document.querySelector('#latency .role-axis-label text').getAttribute('fill')];"
        )

    def changed(before):
        """Charts are drawn again a moment after the page has changed."""
        deadline = time.monotonic() + 30
        while colours()[1] == before[1] and time.monotonic() < deadline:
            time.sleep(0.1)
        return colours()

    light = colours()
    button = browser.find_element(By.CSS_SELECTOR, "button.theme")
    assert button.get_attribute("aria-label") == "Use dark colours"
    button.click()
    dark = changed(light)
    assert light[0] != dark[0] and light[1] != dark[1]
    button.click()
    assert changed(dark) == light


def test_wide_tables_say_so_on_a_phone_and_scroll_by_keyboard(browser, report):
    script = (
        "const box = [...document.querySelectorAll('.scroll')]"
        ".find(e => e.ariaLabel === 'Exported models');"
        "const hint = box.nextElementSibling;"
        "return [box.scrollWidth > box.clientWidth, box.tabIndex, box.scrollLeft,"
        " hint && hint.className === 'scroll-hint' && getComputedStyle(hint).display === 'block'];"
    )
    open_page(browser, report)
    assert browser.execute_script(script) == [False, -1, 0, None]
    open_page(browser, report, WIDTHS["phone"])
    assert browser.execute_script(script) == [True, 0, 0, True]
    box = browser.find_element(By.CSS_SELECTOR, "[aria-label='Exported models']")
    box.send_keys(Keys.ARROW_RIGHT)
    deadline = time.monotonic() + 10
    while browser.execute_script(script)[2] == 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert browser.execute_script(script)[2] > 0


def test_a_pointer_on_a_chart_shows_the_figures_of_that_round(browser, report):
    open_page(browser, report)
    plot = browser.find_element(By.CSS_SELECTOR, "#training svg")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    ActionChains(browser).move_to_element_with_offset(plot, 40, -100).perform()
    deadline = time.monotonic() + 10
    words = ""
    while "validation clients" not in words and time.monotonic() < deadline:
        time.sleep(0.1)
        found = browser.find_elements(By.ID, "vg-tooltip-element")
        words = found[0].text if found else ""
    assert "validation clients" in words and "traffic, MB" in words


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_has_enough_contrast(browser, report, dark):
    open_page(browser, report, dark=dark)
    found = browser.execute_script(
        """
        const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
        const luminance = (c) => c.slice(0, 3).map((v) => v / 255)
          .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
          .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const ground = (e) => {
          for (; e; e = e.parentElement) {
            const color = rgb(getComputedStyle(e).backgroundColor);
            if (color.length < 4 || color[3] === 1) return color;
          }
          return [255, 255, 255];
        };
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        const poor = [];
        while (walker.nextNode()) {
          const element = walker.currentNode.parentElement;
          if (!walker.currentNode.data.trim() || element.closest("script, svg, .chart")) continue;
          const [a, b] = [rgb(getComputedStyle(element).color), ground(element)].map(luminance);
          const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
          if (contrast < arguments[0]) poor.push([walker.currentNode.data.trim(), contrast]);
        }
        return poor;
        """,
        MINIMUM_CONTRAST,
    )
    assert found == []


def test_a_comparison_opens_too(browser, run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run.path, other)
    compared = tmp_path / "comparison.html"
    write.write_comparison([run.path, other], compared)
    open_page(browser, compared, WIDTHS["phone"])
    assert browser.get_log("browser") == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in requested(browser))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
