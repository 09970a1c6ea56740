"""The examples in the project's pages, run as a reader would run them, with their replies compared: see tests/README.md."""

import base64
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import transports
import walks
from harness import BINARY, ROOT, Server, Wrong, environment, assert_equal, assert_true, until

TOOLS = ROOT / "target" / "clients"
PORT = "127.0.0.1:8080"
# The README is for somebody with five minutes.
MAX_LINES, MAX_BYTES = 160, 10_000

# A fence with its language and, perhaps, `norun`; the code; what follows on the next lines.
BLOCK = re.compile(r"^```(\w+)( norun)?\n(.*?)^```\n", re.M | re.S)
REPLIES = ("json", "text")

# Values that differ from run to run, and what stands for them when a reply is compared.
SHAPES = [
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "00000000-0000-0000-0000-000000000000"),
    (re.compile(r"\bses_(?:[0-9a-f]{64}\b|\.\.\.)"), "ses_..."),
    (re.compile(r"\busk_(?:[0-9a-f]{64}\b|\.\.\.)"), "usk_..."),
    (re.compile(r"\bcode_(?:[0-9a-f]{64}\b|\.\.\.)"), "code_..."),
    (re.compile(r'(?<=")[0-9a-f]{1,16}(?=-\d+\\?")'), "0"),  # an etag, up to the version
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "2000-01-01T00:00:00Z"),
    (re.compile(r"\beyJ(?:\.\.\.|[\w-]+\.[\w-]+\.[\w-]+)"), "eyJ..."),
    (re.compile(r"\b1\d{9}\b"), "1000000000"),
]
UUID, SECRETS = SHAPES[0][0], re.compile(r"\b(ses_|usk_|code_)[0-9a-f]{64}\b")


class Page:
    """One page, whose examples run in order in a folder of their own, beside a server of their own."""

    def __init__(self, path, folder, address):
        self.path, self.folder, self.address = path, folder, address
        # From what the page shows to what came: ids, and the latest secret of each kind.
        self.ids, self.secrets = {}, {}

    def run(self):
        text = self.path.read_text()
        blocks = list(BLOCK.finditer(text))
        for number, block in enumerate(blocks):
            language, skipped, code = block.groups()
            if skipped or language in REPLIES:
                continue
            line = text.count("\n", 0, block.start()) + 1
            following = blocks[number + 1] if number + 1 < len(blocks) else None
            reply = None
            if following and following[1] in REPLIES and not text[block.end() : following.start()].strip():
                reply = following
            where = f"{self.path.relative_to(ROOT)}:{line}"
            # No meter of progress; a refusal that the page does not show is a failure.
            (self.folder / ".curlrc").write_text("silent\nshow-error\n" + ("" if reply else "fail-with-body\n"))
            code_of_exit, came = self.execute(language, code, where)
            if reply is None:
                assert_equal(code_of_exit, 0, f"{where}: exit code; it said:\n{came}")
            else:
                self.compare(reply[1], reply[3], came, where)
            for secret in SECRETS.finditer(came):
                self.secrets[secret[1]] = secret[0]
                if secret[1] == "usk_":
                    self.wait_for_key(secret[0])

    def wait_for_key(self, key):
        """The server learns of keys that the command line made within a second; a reader takes longer to go on."""
        header = ("-H", f"authorization: Bearer {key}")
        until(lambda: transports.curl(f"http://{self.address}/v1/keys", *header)[0] != 401, 30, "a key is known")

    def execute(self, language, code, where):
        code = code.replace(PORT, self.address)
        for shown, came in [*self.ids.items(), *((f"{kind}...", secret) for kind, secret in self.secrets.items())]:
            code = code.replace(shown, came)
        if language == "sh":
            command = ["bash", "-e", "-o", "pipefail", "-c", code]
        elif language == "js":
            command = ["node", "-e", code]
        elif language == "go":
            shutil.copytree(TOOLS / "go/users", self.folder / "client/users")
            for file in ("go.mod", "go.sum"):
                shutil.copy(TOOLS / "go" / file, self.folder / "client")
            (self.folder / "client/main.go").write_text(code)
            command = ["bash", "-c", "cd client && go run ."]
        elif language == "java":
            (self.folder / "Example.java").write_text(code)
            # Its library greets on stderr.
            (self.folder / "logging").write_text(".level = WARNING\n")
            command = [*walks.java()[:-1], "-Djava.util.logging.config.file=logging", "Example.java"]
        elif language == "rust":
            file = ROOT / "tests/clients/rust/src/bin/usersd-example.rs"
            assert_equal(code, file.read_text(), f"{where}: the example, and the file that is compiled")
            command = [BINARY.parent / file.stem, f"http://{self.address}"]
        elif language == "toml":
            (self.folder / "page.toml").write_text(code)
            command = ["usersd", "check-config", "--config", "page.toml"]
        else:
            raise Wrong(f"{where}: no way to run {language}; say `norun`")
        bare = {"HOME": str(self.folder), "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "NODE_PATH": f"{TOOLS}/node/node_modules:{TOOLS}/js/node_modules"}
        if language == "go":
            # What is compiled already, and the modules: not in the page's own home.
            names = ("GOCACHE", "GOMODCACHE")
            values = subprocess.run(["go", "env", *names], capture_output=True, text=True, check=True, timeout=60).stdout.split()
            bare.update(zip(names, values), CGO_ENABLED="0")
        done = subprocess.run(
            command, cwd=self.folder, env=environment(bare), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=120,
        )
        return done.returncode, done.stdout

    def compare(self, language, shown, came, where):
        expected, actual = shaped(shown), shaped(came)
        if language == "json":
            assert_equal(values(actual, f"{where}: the reply"), values(expected, f"{where}: the page"), f"{where}: the reply")
        else:
            assert_equal(actual.split("\n"), expected.split("\n"), f"{where}: the reply")
        for pair in zip(UUID.findall(shown), UUID.findall(came)):
            assert_equal(self.ids.setdefault(*pair), pair[1], f"{where}: what the page's id {pair[0]} stands for")


def shaped(text):
    """The text without what differs from run to run."""
    for shape, standing in SHAPES:
        text = shape.sub(standing, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def values(text, what):
    """JSON values, one after the other."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except ValueError as error:
            raise Wrong(f"{what} is not JSON: {error}\n{text}") from error
        found.append(value)
        at = end + len(text[end:]) - len(text[end:].lstrip())
    return found


def examples(path):
    with tempfile.TemporaryDirectory(prefix="usersd.pages.") as name:
        folder = pathlib.Path(name)
        for tool, target in [
            ("bin/usersd", BINARY), ("bin/grpcurl", next((TOOLS / "bin").glob("grpcurl*"))),
            ("bin/buf", next((TOOLS / "bin").glob("buf-*"))), ("proto", ROOT / "proto"),
            ("deploy", ROOT / "deploy"), ("target/venv", TOOLS / "venv"),
        ]:
            (folder / tool).parent.mkdir(exist_ok=True)
            (folder / tool).symlink_to(target)
        settings = {"USERSD_ASSERTIONS_AUDIENCES": "shop"}  # as deploy/examples/README.md says
        if path.parent.name == "proto":
            # What the page on calls needs for second factors; the one on deployment makes a file of its own.
            keys = folder / "keys"
            keys.write_text(f"1 {base64.b64encode(os.urandom(32)).decode()}\n")
            settings["USERSD_PASSWORDS_PEPPER"] = str(keys)
        with Server(f"sqlite://{folder}/usersd.db?mode=rwc", env=settings) as server:
            Page(path, folder, server.address).run()


def is_short():
    text = (ROOT / "README.md").read_bytes()
    assert_true(text.count(b"\n") <= MAX_LINES, f"README.md has {text.count(10)} lines, at most {MAX_LINES}")
    assert_true(len(text) <= MAX_BYTES, f"README.md has {len(text)} bytes, at most {MAX_BYTES}")


def tests():
    pages = (path for under in ("*", "deploy/*") for path in ROOT.glob(f"{under}/README.md"))
    paths = [ROOT / "README.md", *sorted(path for path in pages if path.parent.name != "target")]
    for path in paths:
        if any(block[1] not in REPLIES and not block[2] for block in BLOCK.finditer(path.read_text())):
            yield f"pages / {path.relative_to(ROOT)}", examples, path
    yield "pages / README.md is short", is_short
