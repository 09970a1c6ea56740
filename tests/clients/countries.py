"""Where people sign in from, by a database in MaxMind's format, such as operators download."""

import contextlib
import pathlib
import tempfile

import mmdb_writer
import netaddr

import sdks
from appwrite_users import session
from devices import CHROME, ON_CHROME
from harness import Near, Server, assert_equal
from transports import Canonical

PLACES = {"203.0.113.0/24": ("GB", "United Kingdom"), "2001:db8:1::/48": ("DE", "Germany")}
# Address, code and name of its country.
EXPECTED = [
    ("203.0.113.9", "GB", "United Kingdom"), ("2001:db8:1::7", "DE", "Germany"), ("203.0.114.1", "--", "Unknown"),
    ("2001:db8:2::7", "--", "Unknown"),
]


@contextlib.contextmanager
def made():
    """The path of a small database."""
    writer = mmdb_writer.MMDBWriter(6, "GeoLite2-Country", ["en"], "Made by a test", ipv4_compatible=True)
    for network, (code, name) in PLACES.items():
        writer.insert_network(netaddr.IPSet([network]), {"country": {"iso_code": code, "names": {"en": name}}})
    with tempfile.TemporaryDirectory(prefix="usersd.") as folder:
        path = pathlib.Path(folder) / "countries.mmdb"
        writer.to_db_file(str(path))
        yield path


def known(db, plain):
    """A second server on the same database knows the countries, and tells them of every session."""
    with made() as file, Server(db.url, {"USERSD_GEOIP_DATABASE": str(file)}) as located:
        seen(located, plain)


def seen(located, plain):
    canonical = Canonical(located, "countries")
    user = {"email": "ada@example.com", "password": "correct horse"}
    id = canonical.call("Create", user)["user"]["id"]
    opened = [
        canonical.call("Login", {**user, "device": {"address": address, "userAgent": CHROME}})["session"]
        for address, _, _ in EXPECTED
    ]
    came = canonical.call("ListSessions", {"userId": id})["sessions"]
    places = [(one["device"]["address"], one["device"]["countryCode"], one["device"]["countryName"]) for one in came]
    assert_equal(places, EXPECTED, "countries of sessions")
    logs = canonical.call("ListLogs", {"userId": id, "events": ["SESSION_CREATED"]})["logs"]
    places = [(one["device"]["address"], one["device"]["countryCode"], one["device"]["countryName"]) for one in logs]
    assert_equal(places, EXPECTED[::-1], "countries in the log")
    for make in sdks.ALL:
        for server, known in ((located, True), (plain, False)):
            with contextlib.closing(make(server, "countries")) as sdk:
                expected = []
                for one, (address, code, name) in zip(opened, EXPECTED):
                    where = {"countryCode": code.lower() if known else "--", "countryName": name if known else "Unknown"}
                    expected.append(session(one, id, "ada@example.com", {**ON_CHROME, **where}, address))
                assert_equal(sdk.call("getSessions", id)["sessions"], expected, f"sessions in {sdk.name}")
                log = sdk.call("getLogs", id)["logs"][-2]
                first = {name: expected[0][name] for name in ON_CHROME}
                about = {"event": "account.sessions.create", "ip": "203.0.113.9", "time": Near(written=int)}
                assert_equal(log, {**about, **first}, f"a log entry in {sdk.name}")
