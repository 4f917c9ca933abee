"""Takes the picture of the server's page that docs/server.md shows.

    python -m tests.campaigns.page_picture docs/page.png

Serves nano, opens the page in chromium, and runs the example of its first task.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.server.browser import browser, wait, why_unavailable
from tests.server.conftest import Server, running

WIDTH, HEIGHT = 1100, 760


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.page_picture", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    if why_unavailable():
        parser.error(why_unavailable())
    server = Server("--port", "0")
    with running(server), browser(WIDTH, HEIGHT) as driver:
        driver.get(server.url)
        wait(lambda: driver.find_element("id", "desk").is_displayed())
        driver.find_element("id", "example").click()
        wait(lambda: driver.find_element("id", "cost").text)
        driver.execute_script("document.activeElement.blur()")
        driver.save_screenshot(str(arguments.file))


if __name__ == "__main__":
    main()
