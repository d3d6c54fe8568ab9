"""Take docs/web.webp and docs/web_phone.webp of an exported page, in Chromium: `python docs/web.py FOLDER`."""

import base64
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

_DOCS = Path(__file__).parent
_PORTRAIT = _DOCS.parent / "openface" / "portrait.png"
_SWITCHES = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars")
_PATIENCE = 30
_LOADED = "return 'ready' in document.body.dataset"


def main(folder: Path) -> None:
    """A desk by day, and a phone by night."""
    code = "import sys, pathlib, fer_core.export.web_page as w; w.serve_web(pathlib.Path(sys.argv[1]), 0, print)"
    with (
        subprocess.Popen([sys.executable, "-u", "-c", code, str(folder)], stdout=subprocess.PIPE, text=True) as server,
        tempfile.TemporaryDirectory() as profile,
    ):
        assert server.stdout is not None
        address = next(word for word in server.stdout.readline().split() if word.startswith("http"))
        try:
            _photograph(address, profile, _DOCS / "web.webp", "light", {"width": 1100, "height": 1310, "mobile": False})
            _photograph(
                address, profile, _DOCS / "web_phone.webp", "dark", {"width": 360, "height": 1080, "mobile": True}
            )
        finally:
            server.terminate()


def _photograph(address: str, profile: str, to: Path, scheme: str, screen: dict[str, Any]) -> None:
    options = webdriver.ChromeOptions()
    for switch in (*_SWITCHES, f"--user-data-dir={profile}/{scheme}"):
        options.add_argument(switch)
    with webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver")) as browser:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"deviceScaleFactor": 1, **screen})
        wish = {"name": "prefers-color-scheme", "value": scheme}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [wish, still]})
        browser.get(address)
        wait = WebDriverWait(browser, _PATIENCE)
        wait.until(lambda page: page.execute_script(_LOADED))
        browser.find_element(By.ID, "file").send_keys(str(_PORTRAIT))
        wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, ".bar.top"))
        picture = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
    Image.open(BytesIO(base64.b64decode(picture))).convert("RGB").save(to, quality=88, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
