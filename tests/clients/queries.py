"""Alerts and panels of deploy/monitoring ask for metrics, and for labels of them, that a running server shows."""

import json
import re

import promql_parser
import yaml

from harness import ROOT, Server, Sqlite, Wrong, database, assert_equal, assert_true
from telemetry import fetched, monitor
from transports import Canonical, Refused

MONITORING = ROOT / "deploy" / "monitoring"
# Prometheus' own: a metric, and the labels that it gives every one.
UP, TARGET = "up", {"job", "instance"}


def expressions():
    """Alerts, each with an entry in the runbook, and panels: the place of each expression, and its text."""
    runbook = (MONITORING / "RUNBOOK.md").read_text()
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            assert_true(f"## {rule['alert']}\n" in runbook, f"the runbook has no {rule['alert']}")
            yield rule["alert"], rule["expr"]
    for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m")


def shown(text):
    """The names of the samples in a scrape, with the names of their labels."""
    known = {UP: set(TARGET)}
    for line in text.splitlines():
        if declared := re.fullmatch(r"# TYPE (\w+) (\w+)", line):
            # Some have no sample before something happens.
            for end in ("_bucket", "_sum", "_count") if declared[2] == "histogram" else ("",):
                known.setdefault(declared[1] + end, set(TARGET))
        elif sample := re.match(r"(\w+)(?:\{(.*)\})? ", line):
            known.setdefault(sample[1], set(TARGET)).update(re.findall(r'(\w+)="', sample[2] or ""))
    return known


def selectors(expression):
    found = []
    promql_parser.walk(expression, lambda node: found.append(getattr(node, "vector_selector", node)))
    return [node for node in found if isinstance(node, promql_parser.VectorSelector)]


def grouped(node):
    """The labels that a part of an expression goes by."""
    modifier = getattr(node, "modifier", None)
    if isinstance(node, promql_parser.AggregateExpr):
        return modifier.labels if modifier else []
    if isinstance(node, promql_parser.BinaryExpr) and modifier:
        return [*(modifier.matching.labels if modifier.matching else []), *(modifier.group_labels or [])]
    return []


def faults(text, known):
    """What an expression asks for and is not there."""
    try:
        expression = promql_parser.parse(text)
    except ValueError as error:
        yield str(error)
        return
    nodes = []
    promql_parser.walk(expression, nodes.append)
    for selector in selectors(expression):
        if selector.name not in known:
            yield f"there is no metric {selector.name}"
        asked = {matcher.name for matcher in selector.matchers.matchers}
        asked |= {label for node in nodes for label in grouped(node) if selector.name in {one.name for one in selectors(node)}}
        for label in sorted(asked - known.get(selector.name, asked)):
            yield f"{selector.name} has no label {label}"


def called(server):
    """Some of everything that the labels tell apart."""
    client = Canonical(server, "default")
    client.call("Create", {"username": "ada", "password": "correct horse"})
    token = client.call("Login", {"username": "ada", "password": "correct horse"})["session"]["id"]
    for _ in range(2):
        client.call("ReadSession", {"sessionId": token})
    try:
        client.call("Login", {"username": "ada", "password": "wrong horse"})
    except Refused:
        return
    raise Wrong("a wrong password is refused")


def asked_for():
    with database(Sqlite) as db, Server(db.url, {"USERSD_METRICS_LISTEN": "127.0.0.1:0"}) as server:
        called(server)
        status, text = fetched(monitor(server), "/metrics")
    assert_equal(status, 200, "status of /metrics")
    known = shown(text)
    every = list(expressions())
    print(f"     {len(every)} expressions, {len(known)} names of samples")
    assert_equal([f"{place}: {fault}" for place, query in every for fault in faults(query, known)], [], "what is not there")
    # The check itself sees what it is to see.
    for query, fault in [
        ("rate(usersd_calls[5m])", "there is no metric usersd_calls"),
        ('sum(rate(usersd_calls_total{verb="GET"}[5m]))', "usersd_calls_total has no label verb"),
        ("usersd_cache_bytes / on (shard) usersd_cache_entries", "usersd_cache_bytes has no label shard"),
        ("sum by (reason) (rate(usersd_hash_wait_seconds_count[5m]))", "usersd_hash_wait_seconds_count has no label reason"),
    ]:
        assert_true(fault in list(faults(query, known)), f"a fault of {query}: {list(faults(query, known))}")


def tests():
    yield "telemetry / alerts and panels ask for what there is", asked_for
