"""The page at "/", in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from sabiyarn_edge import EdgeGenerator
from tests.export.models import Exported
from tests.server.browser import browser, prefer, resize, wait, why_unavailable
from tests.server.conftest import Server, running, wait_until

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

pytestmark = [
    pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable()),
    pytest.mark.filterwarnings("ignore::sabiyarn_edge.CutAnswerWarning"),  # short answers
]


class Page:
    """The page in a browser."""

    def __init__(self, driver: Chrome, server: Server) -> None:
        self.driver, self.server = driver, server

    def open(self, model: str = "nano") -> None:
        self.driver.get(self.server.url)
        wait(lambda: self("desk").is_displayed())
        if model != "nano":
            self.choose("model", model)
            wait(lambda: "Sentiment" in self("tasks").text)

    def __call__(self, id: str) -> WebElement:
        return self.driver.find_element("id", id)

    def choose(self, id: str, value: str) -> None:
        from selenium.webdriver.support.ui import Select

        Select(self(id)).select_by_value(value)

    def task(self, name: str) -> None:
        self.driver.find_element("xpath", f"//fieldset//label[span='{name}']/input").click()

    def write(self) -> str:
        """Press Write, and give the answer."""
        self("write").click()
        return self.finished()

    def finished(self) -> str:
        wait(lambda: self("write").is_displayed() and (self("cost").text or self("error").text))
        return self("answer").get_property("textContent")

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()


@pytest.fixture(scope="module")
def served(tagged: Exported) -> Iterator[Server]:
    server = Server("--port", "0", "--parallel", "5", "--model", "nano", "--model", f"tagged={tagged.folder}")
    with running(server):
        yield server


@pytest.fixture(scope="module")
def driver() -> Iterator[Chrome]:
    with browser() as driver:
        yield driver


@pytest.fixture
def page(served: Server, driver: Chrome) -> Iterator[Page]:
    """The page of nano on a desk; it breaks no rule of its own, and asks nobody but its server."""
    resize(driver, 1200, 800)
    prefer(driver, "light")
    page = Page(driver, served)
    page.open()
    yield page
    complaints = [entry for entry in driver.get_log("browser") if "400 (Bad Request)" not in entry["message"]]
    assert complaints == []


@pytest.fixture(scope="module")
def nano() -> EdgeGenerator:
    return EdgeGenerator.from_pretrained("nano")


def test_the_example_is_translated(page: Page, nano: EdgeGenerator) -> None:
    example = nano.tasks.task("translate").example
    page("example").click()
    assert page.finished() == nano.run_task("translate", **example)
    assert page("slot-text").get_property("value") == example["text"]
    assert page("answer").get_attribute("lang") == example["to"]
    assert page("answer").get_attribute("aria-busy") == "false"
    tokens = len(nano.tokenizer.encode(nano.run_task("translate", **example), add_special_tokens=False))
    assert f"wrote {tokens + 1} in " in page("cost").text  # and the end token
    assert "tokens/s" in page("cost").text


def test_an_answer_is_copied_and_used_as_text(page: Page) -> None:
    grant = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": page.server.url}
    page.driver.execute_cdp_cmd("Browser.grantPermissions", grant)
    page("example").click()
    answer = page.finished()
    page("copy").click()
    read = "const [done] = arguments; navigator.clipboard.readText().then(done)"
    wait(lambda: page.driver.execute_async_script(read) == answer)
    page("reuse").click()
    assert page("slot-text").get_property("value") == answer
    assert page("answer").text == ""


def test_free_text_goes_on_from_its_words(page: Page, nano: EdgeGenerator) -> None:
    page.task("Free text")
    page("slot-prompt").send_keys("<yor> Gbogbo ènìyàn ni a bí")
    page.driver.find_element("css selector", "summary").click()
    page("max_new_tokens").send_keys("12")
    expected = nano.generate("<yor> Gbogbo ènìyàn ni a bí", max_new_tokens=12).text
    assert page.write() == expected
    assert "cut at its longest length" in page("cost").text
    page("reuse").click()
    assert page("slot-prompt").get_property("value") == f"<yor> Gbogbo ènìyàn ni a bí{expected}"


def test_drawn_text_repeats_with_its_seed(page: Page, nano: EdgeGenerator) -> None:
    page.task("Continue")
    page.choose("slot-language", "hau")
    page("slot-text").send_keys("Su dai")
    page.driver.find_element("css selector", "summary").click()
    page.choose("temperature", "1.1")
    page("seed").send_keys("7")
    page("max_new_tokens").send_keys("20")
    options = {"do_sample": True, "temperature": 1.1, "num_beams": 1, "seed": 7, "max_new_tokens": 20}
    expected = nano.run_task("continue", language="hau", text="Su dai", options=options)
    assert page.write() == expected


def test_an_answer_is_stopped(page: Page, nano: EdgeGenerator) -> None:
    """It waits for rows, which others have."""
    from selenium.webdriver import Keys

    on = {"overflow": "slide", "suppress_tokens": list(nano.generation_config.eos_token_ids)}
    endless = {"max_tokens": 100_000, "temperature": 1, "n": 5, "extra_body": on}
    others = page.server.client().completions.create(model="nano", prompt="a", stream=True, **endless)
    next(iter(others))
    page("example").click()
    wait(lambda: page("stop").is_displayed())
    assert page("answer").get_attribute("aria-busy") == "true"
    wait_until(lambda: page.server.metric("requests_waiting") == 1)
    page.press(Keys.ESCAPE)
    page.finished()
    assert "Stopped after" in page("cost").text
    wait_until(lambda: page.server.metric("requests_waiting") == 0)
    page("write").click()
    wait(lambda: page("stop").is_displayed())
    page("stop").click()
    page.finished()
    others.close()


def test_it_works_with_the_keyboard(page: Page, nano: EdgeGenerator) -> None:
    from selenium.webdriver import ActionChains, Keys

    page.press(Keys.TAB, Keys.TAB)  # over the model
    assert page.driver.switch_to.active_element.get_attribute("value") == "translate"
    page.press(*[Keys.ARROW_RIGHT] * 3)  # to the last of nano's four tasks
    assert "Continues" in page("description").text
    page.press(Keys.TAB, Keys.TAB, "Su dai")
    page.press(Keys.TAB, Keys.ARROW_RIGHT, Keys.ENTER)  # the first of the letters
    assert page("slot-text").get_property("value") == "Su daiẹ"
    page.press(Keys.BACKSPACE)
    page.choose("slot-language", "hau")
    page("slot-text").click()
    ActionChains(page.driver).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    assert page.finished() == nano.run_task("continue", language="hau", text="Su dai")


def test_letters_and_tone_marks(page: Page) -> None:
    page("slot-text").click()
    marks = {button.accessible_name: button for button in page("letters").find_elements("tag name", "button")}
    for name in ("ẹ", "high tone", "ɓ", "low tone"):
        marks[name].click()
    marks["capital letters"].click()
    marks["ọ"].click()
    assert page("slot-text").get_property("value") == "ẹ́ɓ̀Ọ"  # NFC: joined where there is a letter for it


def test_everything_has_a_name_and_a_place(page: Page) -> None:
    for width in (1200, 360):
        resize(page.driver, width, 740)
        page("example").click()
        page.finished()
        for details in page.driver.find_elements("css selector", "details:not([open]) summary"):
            details.click()
        wide = page.driver.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
        for field in page.driver.find_elements("css selector", "input, select, textarea, button, #answer"):
            if field.is_displayed():
                assert field.accessible_name, field.get_attribute("outerHTML")
    assert {page("cost").aria_role, page("error").aria_role} == {"status", "alert"}


def test_a_dark_screen(page: Page) -> None:
    def color() -> Any:
        return page.driver.execute_script("return getComputedStyle(document.body).backgroundColor")

    light = color()
    prefer(page.driver, "dark")
    assert sum(numbers(color())) < 128 < 600 < sum(numbers(light))


def numbers(color: str) -> list[int]:
    return [int(part) for part in color.removeprefix("rgb(").rstrip(")").split(",")]


def test_what_is_refused_is_said_where_it_is(page: Page) -> None:
    page("write").click()
    assert "Write a text first" in page("error").text
    assert page("slot-text").get_attribute("aria-invalid") == "true"
    page("slot-text").send_keys("Everyone")
    page.driver.find_element("css selector", "summary").click()
    page("num_beams").send_keys("65")
    page.write()
    assert "num_beams is 65" in page("error").text
    assert page("num_beams").get_attribute("aria-invalid") == "true"
    assert page.driver.switch_to.active_element == page("num_beams")


def test_labels_and_names(page: Page, tagged: Exported) -> None:
    generator = EdgeGenerator.from_pretrained(tagged.folder, num_threads=1)
    page.open("tagged")
    page.task("Sentiment")
    page("slot-text").send_keys("Ilé ńlá")
    page("write").click()
    wait(lambda: page("cost").text)
    expected = generator.classify("Ilé ńlá", "sentiment").probabilities
    rows = [row.text.split(maxsplit=1) for row in page("answer").find_elements("tag name", "tr")]
    assert rows == [[label, f"{100 * share:.1f} %"] for label, share in expected.items()]
    page.task("Classify")
    page("slot-labels").send_keys("ilé, ọmọ")
    page("write").click()
    wait(lambda: len(page("answer").find_elements("tag name", "tr")) == 2)
    found = [("PER", "Adé", 2, 5), ("LOC", "Èkó", 9, 12)]
    answer = [dict(zip(("label", "text", "start", "end"), one, strict=True)) for one in found]
    draw = """const [answer, source, done] = arguments;
        import("/page/answer.js").then(({ drawAnswer }) =>
            done(drawAnswer(document.getElementById("answer"), answer, source)));"""
    assert page.driver.execute_async_script(draw, answer, "🙂 Adé wà Èkó.") == "PER\tAdé\nLOC\tÈkó"
    assert page("answer").text == "🙂 AdéPER wà ÈkóLOC."


def test_a_key_is_asked_for(serve: Callable[..., Server], driver: Chrome) -> None:
    server = serve("--api-key", "right")
    server.wait_until_ready()
    page = Page(driver, server)
    driver.get(server.url)
    for key in ("wrong", "right"):
        wait(lambda: page("key-form").is_displayed())
        page("key").clear()
        page("key").send_keys(key)
        driver.find_element("css selector", "#key-form button").click()
    wait(lambda: page("desk").is_displayed())
    page("example").click()
    assert page.finished()
    driver.get_log("browser")  # it says 401
