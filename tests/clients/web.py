"""Connect-Web in a page of another origin, in headless Chromium: it takes the walk of all clients, by Connect and gRPC-Web."""

import contextlib
import http.server
import json
import threading

import walks
from docs import Browser
from harness import EVERY_SCOPE, Postgres, Server, Sqlite, database, assert_equal, assert_true, new_key

SCRIPT = walks.TOOLS / "js/web.js"


class Page(http.server.BaseHTTPRequestHandler):
    """A page with the client."""

    def do_GET(self):
        body = f"<!doctype html><title>shop</title><script>{SCRIPT.read_text()}</script>".encode()
        self.send_response(200)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def origin():
    """An origin that serves the page."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(10)


def walked(browser, page, server, key, protocol):
    """What the walk from a page gives, or that the browser does not let it."""
    browser.open(page + "/")
    arguments = ", ".join(json.dumps(text) for text in (f"http://{server.address}", key, protocol))
    return browser.value(f"walk({arguments}).catch(error => `${{error}}`)")


def pages(kind):
    with contextlib.ExitStack() as stack:
        listed, other = stack.enter_context(origin()), stack.enter_context(origin())
        db = stack.enter_context(database(kind))
        keys = {protocol: new_key(db, protocol, EVERY_SCOPE) for protocol in ("connect", "grpc-web")}
        server = stack.enter_context(Server(db.url, {"USERSD_HTTP_CORS_ORIGINS": listed}))
        browser = stack.enter_context(contextlib.closing(Browser()))
        for protocol, key in keys.items():
            refused = walked(browser, other, server, key, protocol)
            assert_true("Failed to fetch" in refused, f"{protocol} from an origin that is not listed: {refused}")
        assert_equal(db.query("SELECT count(*) FROM users"), [("0",)], "users that an origin that is not listed made")
        for protocol, key in keys.items():
            assert_equal(walked(browser, listed, server, key, protocol), walks.EXPECTED, f"the walk by {protocol}")


def tests():
    for kind in (Sqlite, Postgres):
        yield f"walks / {kind.__name__} / Connect-Web in Chromium", pages, kind
