"""The dependencies: checks them by deny.toml, and writes what the program consists of (a CycloneDX SBOM).

    tests/deploy/supply.py                 checks licences, sources and banned crates
    tests/deploy/supply.py --sbom FILE     also writes the SBOM, `-` to stdout

Everything comes from `cargo metadata`, `cargo tree` and Cargo.lock. Known vulnerabilities need a database that changes every day:
`cargo deny check advisories` asks it.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The system that the program of the SBOM is for.
TARGET = "x86_64-unknown-linux-gnu"


def allowed(expression, licences):
    """Whether an SPDX expression can be met by some of the licences."""
    # A slash is how OR was written once.
    tokens = re.findall(r"\(|\)|\b(?:AND|OR)\b|[\w.+-]+(?: WITH [\w.-]+)?", expression.replace("/", " OR "))
    words = {"(": "(", ")": ")", "AND": "and", "OR": "or"}
    # Nothing but these words is left to evaluate.
    return eval(" ".join(words.get(token, str(token in licences)) for token in tokens))  # noqa: S307


def complaints(packages, rules, checksums):
    licences, banned = set(rules["licenses"]["allow"]), set(rules["bans"]["deny"])
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if not package["license"] or not allowed(package["license"], licences):
            yield f"{name}: the licence is {package['license'] or 'not known'}"
        if package["name"] in banned:
            yield f"{name}: is banned"
        source = package["source"]
        if source is None:
            if not pathlib.Path(package["manifest_path"]).is_relative_to(ROOT):
                yield f"{name}: comes from outside of the repository"
        elif not source.endswith("/crates.io-index"):
            yield f"{name}: comes from {source}"
        elif (package["name"], package["version"]) not in checksums:
            yield f"{name}: has no checksum in Cargo.lock"


def built():
    """The names and versions of what the program is built from: tests are left out, with the features that only they ask for."""
    tree = cargo("tree", "--edges", "no-dev", "--target", TARGET, "--prefix", "none", "--format", "{p}")
    return {tuple(line.split()[:2]) for line in tree.splitlines()}


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksums):
    name, version = package["name"], package["version"]
    described = {
        "type": "library", "bom-ref": purl(package), "name": name, "version": version, "purl": purl(package),
        "licenses": [{"expression": package["license"].replace("/", " OR ")}],
    }
    checksum = checksums.get((name, version))
    if checksum:
        described["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return described


def sbom(metadata, checksums):
    names = built()
    packages = {
        package["id"]: package for package in metadata["packages"] if (package["name"], f"v{package['version']}") in names
    }
    root = metadata["resolve"]["root"]
    needs = {node["id"]: [need for need in node["dependencies"] if need in packages] for node in metadata["resolve"]["nodes"]}
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": {**component(packages[root], checksums), "type": "application"}},
        "components": [component(package, checksums) for at, package in packages.items() if at != root],
        "dependencies": [{"ref": purl(packages[at]), "dependsOn": [purl(packages[need]) for need in needs[at]]} for at in packages],
    }


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments, "--locked"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sbom", metavar="FILE", help="write the SBOM there")
    options = parser.parse_args()
    metadata = json.loads(cargo("metadata", "--format-version", "1"))
    packages = metadata["packages"]
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    checksums = {(entry["name"], entry["version"]): entry["checksum"] for entry in lock["package"] if "checksum" in entry}
    rules = tomllib.loads((ROOT / "deny.toml").read_text())
    wrong = list(complaints(packages, rules, checksums))
    if options.sbom:
        text = json.dumps(sbom(metadata, checksums), indent=1) + "\n"
        sys.stdout.write(text) if options.sbom == "-" else pathlib.Path(options.sbom).write_text(text)
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"{len(packages)} packages, {len(wrong)} against deny.toml", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
