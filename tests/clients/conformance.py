"""Connect's conformance suite (connectrpc.com/conformance) against our server, over Connect, gRPC and gRPC-Web.

What fails is listed here with its reason and with what the suite says of it: a listed case that passes is a failure, and so is one that
fails in another way.
"""

import dataclasses
import re
import subprocess

from harness import BINARY, ROOT, Wrong, assert_equal, assert_true

FOLDER = ROOT / "tests/clients/connect"

# Every refusal of ours has a google.rpc.ErrorInfo with its reason, and the suite wants no detail that it did not ask for.
ERROR_INFO = (
    r"actual error contain 1 details; expecting 0",
    r'connect error JSON: details\[0\]: could not check debug data because message type "google\.rpc\.ErrorInfo" could not be resolved.*',
)


@dataclasses.dataclass
class Known:
    """Cases that fail, and why. The suite's sentences about them match `said`, or are those about the detail."""

    why: str
    cases: list[str]
    said: str = "$^"


def code(ours, theirs):
    return rf"actual error \{{code: \d+ \({ours}\), .*\}} does not match expected code \d+ \({theirs}\)"


TOO_LONG = [
    f"{kind}-exceeds-server-limit" for kind in (
        "unary/request", "server-stream/request", "client-stream/first-request", "client-stream/subsequent-request",
        "bidi-stream/half-duplex/first-request", "bidi-stream/half-duplex/subsequent-request", "bidi-stream/full-duplex/first-request",
    )
]
# Over HTTP/1.1 a client that goes on writing after a refusal may not read it: of its body only a bounded rest is read.
CUT_OFF = r'actual error \{code: .*(broken pipe|connection reset).*'


def of(suites, *cases):
    return [f"{suite}/**/{case}" for suite in suites for case in cases]


CONNECT, GRPC, WEB = "Connect Unexpected Requests", "gRPC Unexpected Requests", "gRPC-Web Unexpected Requests"

KNOWN = [
    Known("the refusal has a detail, its code is right", [
        *(f"Basic/**/Protocol:{protocol}/**/unimplemented" for protocol in ("PROTOCOL_GRPC", "PROTOCOL_GRPC_WEB")),
        *of([CONNECT, GRPC, WEB], "client-stream/incomplete-message", "client-stream/incomplete-message-prefix", "unexpected-compression"),
        *of([GRPC, WEB], "unexpected-uri"),
    ]),
    Known(
        "the same: a message that is too long only when unpacked",
        [f"Server Message Size/**/Compression:{packed}/**/{case}" for packed in ("COMPRESSION_GZIP", "COMPRESSION_ZSTD") for case in TOO_LONG],
        CUT_OFF,
    ),
    Known(
        "a message that is sent too long is OUT_OF_RANGE, as tonic has it and errors.proto says",
        [f"Server Message Size/**/Compression:COMPRESSION_IDENTITY/**/{case}" for case in TOO_LONG],
        f"{code('out_of_range', 'resource_exhausted')}|{CUT_OFF}",
    ),
    Known(
        "a call that has not exactly one message is MALFORMED: UNIMPLEMENTED would say that the RPC is not there",
        [*of([CONNECT, GRPC, WEB], "server-stream/no-request", "server-stream/multiple-requests"),
         *of([GRPC, WEB], "unary/no-request", "unary/multiple-requests")],
        code("invalid_argument", "unimplemented"),
    ),
    Known(
        "a compressed message without a coding is MALFORMED: INTERNAL is for faults of ours, which wake somebody up",
        of([CONNECT, GRPC, WEB], "unexpected-compressed-message"),
        code("invalid_argument", "internal"),
    ),
    Known(
        "gRPC's subtypes other than json stand for protobuf",
        of([GRPC], "unexpected-codec"),
        "expecting an error but received none|expecting 0 response messages but instead got 1",
    ),
    Known(
        "an unknown RPC is 501, the status that Connect has for `unimplemented`",
        of([CONNECT], "unexpected-uri"),
        "actual HTTP status code does not match: wanted 404; got 501",
    ),
]

# Whoever is first: the client's own clock, or our DEADLINE_EXCEEDED with its detail.
FLAKY = "Timeouts/**"


def complaints(output):
    """What the suite says of cases that is not known: of each its name and sentences."""
    for name, said in re.findall(r"^INFO: (.*) failed \(as expected\):\n((?:\t.*\n)*)", output, re.MULTILINE):
        expected = [known.said for known in KNOWN if any(matches(pattern, name) for pattern in known.cases)]
        for sentence in filter(None, (line.strip().removeprefix("; ") for line in said.splitlines())):
            if not any(re.fullmatch(form, sentence) for form in (*ERROR_INFO, *expected)):
                yield f"{name}: {sentence}"


def matches(pattern, name):
    """Whether a case has the name, in which ** stands for any parts."""
    return re.fullmatch(re.escape(pattern).replace(r"/\*\*/", "/(?:.*/)?"), name) is not None


def conforms(program):
    server = BINARY.parent / "usersd-conformance"
    assert_true(server.exists(), f"{server} is missing: run `cargo build --workspace`")
    known = [argument for one in KNOWN for case in one.cases for argument in ("--known-failing", case)]
    done = subprocess.run(
        [program, "--mode", "server", "--conf", FOLDER / "config.yaml", *known, "--known-flaky", FLAKY, "--", server],
        capture_output=True, text=True, timeout=300,
    )
    output = done.stdout + done.stderr
    if done.returncode != 0:
        raise Wrong("\n".join(line for line in output.splitlines() if line.startswith(("FAILED", "\t", "Total")) or "passed" in line) or output)
    assert_equal(list(complaints(output)), [], "what the suite says of cases that are known to fail")
    total = re.search(r"^Total cases: (\d+)\n(\d+) passed", output, re.MULTILINE)
    print(f"     {total[1]} cases, of which {total[2]} passed; the others are known to fail, for {len(KNOWN)} reasons")


def tests():
    programs = list((ROOT / "target/clients/bin").glob("connectconformance-*"))
    toolchains = subprocess.run(["go", "env", "GOTOOLCHAIN"], capture_output=True, text=True).stdout.strip()
    if not toolchains and not programs:
        print("skipped: Connect's conformance suite is built by Go 1.21 and newer")
        return
    assert_equal(len(programs), 1, "the number of conformance suites that are built")
    yield "Connect's conformance suite", conforms, programs[0]
