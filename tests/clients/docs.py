"""/docs in a browser: headless Chromium shows it, and its "Try it out" calls the server."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time

from harness import ROOT, Server, Sqlite, Wrong, database, assert_equal, assert_true

PICTURE = ROOT / "target" / "docs.png"

# Resolves when the page has an element; the browser tells it of changes.
APPEARS = """new Promise(done => {
  const look = () => { const found = document.querySelector(%s); if (found) { watch.disconnect(); done(found.textContent) } }
  const watch = new MutationObserver(look)
  watch.observe(document, {subtree: true, childList: true, attributes: true, characterData: true})
  look()
})"""


class Browser:
    """Chromium, spoken to in its own protocol over two pipes."""

    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="usersd.chromium.")
        inner_in, self.out = os.pipe()
        self.into, inner_out = os.pipe()

        def as_3_and_4():
            # Through numbers that are neither: one may be 3 or 4 already.
            high_in, high_out = os.dup2(inner_in, 103), os.dup2(inner_out, 104)
            os.dup2(high_in, 3)
            os.dup2(high_out, 4)

        program = shutil.which("chromium") or shutil.which("chromium-browser")
        assert_true(program, "chromium is not installed")
        self.process = subprocess.Popen(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
             f"--user-data-dir={self.profile}", "--no-first-run", "--disable-background-networking", "--window-size=1280,1600", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=as_3_and_4, close_fds=False,
        )
        os.close(inner_in)
        os.close(inner_out)
        self.number, self.session, self.events, self.buffer = 0, None, [], b""

    def close(self):
        self.process.kill()
        self.process.wait(20)
        os.close(self.out)
        os.close(self.into)
        shutil.rmtree(self.profile, ignore_errors=True)

    def receive(self):
        while b"\0" not in self.buffer:
            piece = os.read(self.into, 1 << 16)
            if not piece:
                raise Wrong("the browser has ended")
            self.buffer += piece
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            came = self.receive()
            if came.get("id") == self.number:
                if "error" in came:
                    raise Wrong(f"{method}: {came['error']}")
                return came["result"]
            self.events.append(came)

    def open(self, url):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Network", "Log", "Runtime", "Page"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)
        # A new page has a new context: an expression that is asked for too early is lost with the old one.
        deadline = time.monotonic() + 60
        while self.value("location.href + ' ' + document.readyState") != f"{url} complete":
            assert_true(time.monotonic() < deadline, f"{url} is loaded")
            time.sleep(0.05)

    def value(self, expression):
        done = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            raise Wrong(f"{expression}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def appears(self, selector):
        """The text of an element, when it is there."""
        return self.value(APPEARS % json.dumps(selector))

    def click(self, selector):
        self.appears(selector)
        self.value(f"document.querySelector({json.dumps(selector)}).click()")

    def happened(self, *methods):
        return [event["params"] for event in self.events if event.get("method") in methods]


def try_it_out():
    """The page shows the API, makes a user and reads it, and asks no other host for anything."""
    with database(Sqlite) as db, Server(db.url) as server, contextlib.closing(Browser()) as browser:
        home = f"http://{server.address}/"
        browser.open(home + "docs")
        assert_true("usersd" in browser.appears(".info .title"), "the title")
        for operation in ("Create", "Read"):
            place = f"#operations-Users-Users_{operation}"
            browser.click(f"{place} .opblock-summary-control")
            browser.click(f"{place} .try-out__btn")
            browser.click(f"{place} .execute")
            assert_equal(browser.appears(f"{place} .live-responses-table .response .response-col_status").strip()[:3], "200", operation)
            assert_true('"username": "ada"' in browser.appears(f"{place} .live-responses-table .highlight-code"), f"{operation} shows the user")
        PICTURE.parent.mkdir(exist_ok=True)
        PICTURE.write_bytes(base64.b64decode(browser.call("Page.captureScreenshot")["data"]))
        assert_equal(db.query("SELECT id, username FROM users"), [("ada", "ada")], "users")
        asked = [event["request"]["url"] for event in browser.happened("Network.requestWillBeSent")]
        elsewhere = [url for url in asked if not url.startswith((home, "data:"))]
        assert_true(home + "openapi.json" in asked and not elsewhere, f"asked elsewhere: {elsewhere}")
        faults = browser.happened("Runtime.exceptionThrown")
        faults += [event for event in browser.happened("Log.entryAdded") if event["entry"]["level"] == "error"]
        assert_equal(faults, [], "faults of the page")


def tests():
    yield "docs / in Chromium", try_it_out
