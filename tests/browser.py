"""Run a headless Chromium for tests of pages: what it draws, its errors, and its requests."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

# Debian's own; /dev/shm may be small in containers, and root has no sandbox of Chromium's.
_BINARY, _DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
_OPTIONS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,900")


def _axe() -> str:
    """Return axe-core, which the package `axe-playwright-python` contains; nothing else of it is used."""
    spec = find_spec("axe_playwright_python")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).with_name("axe.min.js").read_text(encoding="utf-8")


class Browser:
    """A browser with one page at a time. Close it."""

    def __init__(self) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = _BINARY
        for option in _OPTIONS:
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(_DRIVER))

    def open(self, path: Path, scheme: str = "light") -> None:
        """Show a file that sets `data-ready` at its end, with a preferred colour scheme."""
        self.media(scheme)
        self.driver.get(path.as_uri())
        WebDriverWait(self.driver, 60).until(lambda _: self.js("document.documentElement.dataset.ready"))

    def media(self, scheme: str = "light", kind: str = "") -> None:
        """Set the preferred colour scheme, and the kind of media: "print", or "" for a screen."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": features})

    def size(self, width: int, height: int) -> None:
        """Set the size of the page's view, in pixels; 0 and 0 for the window's own."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 0, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def axe(self) -> list[str]:
        """Return what axe-core finds against WCAG and its own best practices: the rule and the element."""
        self.driver.execute_script(_axe())
        self.driver.set_script_timeout(120)
        found = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run(document).then(result => done(result.violations.flatMap("
            "rule => rule.nodes.map(node => `${rule.id}: ${node.html.slice(0, 200)}`))));"
        )
        return list(found)

    def js(self, expression: str, *arguments: Any) -> Any:
        """Return the value of an expression in the page; `a` are the arguments."""
        return self.driver.execute_script(f"const a = arguments; return ({expression});", *arguments)

    def text(self, selector: str) -> str:
        """Return the text that an element shows."""
        return str(self.js("document.querySelector(a[0]).innerText", selector))

    def measures(self, name: str) -> list[float]:
        """Return the durations, in milliseconds, that the page measured under a name."""
        return list(self.js("performance.getEntriesByName(a[0]).map(one => one.duration)", name))

    def console(self) -> list[str]:
        """Return the messages in the console since the last call."""
        return [entry["message"] for entry in self._log("browser")]

    def requests(self) -> list[str]:
        """Return the addresses that were requested since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        return self.driver.get_log(kind)  # type: ignore[no-untyped-call,no-any-return]  # Selenium's

    def close(self) -> None:
        """End the browser."""
        self.driver.quit()
