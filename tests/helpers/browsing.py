"""A headless Chromium that looks at pages as a person would, and waits for what they show."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.remote.webdriver import WebDriver

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
NO_BROWSER = "no chromium and chromedriver: apt install chromium chromium-driver"
SWITCHES = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--window-size=1100,1000",
    "--host-resolver-rules=MAP elsewhere.test 127.0.0.1",
]


@contextmanager
def browser(profile: Path, *switches: str) -> Iterator[WebDriver]:
    """A browser that has asked for nothing yet; it keeps its files in `profile`."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for switch in (*SWITCHES, f"--user-data-dir={profile}", *switches):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    try:
        driver.get("about:blank")
        driver.get_log("performance")  # What the browser's own first tab asked for.
        yield driver
    finally:
        driver.quit()


def until(holds: Callable[[], object], what: str, patience: float = 20) -> None:
    """Wait for what a page is about to show."""
    end = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < end, f"not within {patience} s: {what}"
        time.sleep(0.05)
