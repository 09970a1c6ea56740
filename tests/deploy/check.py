"""Checks what deploy/ holds, without a cluster: manifests by their schemas, the image, HAProxy, systemd, alerts."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

import jsonschema
import referencing
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
# The schemas of one version in the package kubernetes-validate, which is not installed: it has thousands of files.
SCHEMAS = "kubernetes_validate/kubernetes-json-schema/v1.34.0-local-strict"
# What the manifests bring to a cluster by its operators, of which there are no schemas here.
CUSTOM = {"Kustomization", "ServiceMonitor"}


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def command(*arguments):
    """What a program complains of, if it is there."""
    if not shutil.which(arguments[0]):
        print(f"skipped: {arguments[0]} is not installed")
        return []
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    # systemd-analyze ends well though it says what it does not know.
    well = done.returncode == 0 and "Unknown" not in done.stderr and "Failed to parse" not in done.stderr
    return [] if well else [f"{arguments[0]}: {(done.stdout + done.stderr).strip()}"]


def manifests():
    folder = DEPLOY / "kubernetes"
    resources = set(documents(folder / "kustomization.yaml")[0]["resources"])
    files = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    if files != resources:
        yield f"kustomization.yaml does not name {sorted(files ^ resources)}"
    with zipfile.ZipFile(next(pathlib.Path(sys.prefix).glob("kubernetes_validate-*.whl"))) as package:
        definitions = schema_of(package, "_definitions")
        for path in sorted(folder.glob("*.yaml")):
            for document in documents(path):
                if document["kind"] not in CUSTOM:
                    yield from violations(path.name, document, package, definitions)


def schema_of(package, name):
    # The file refers to the definitions by its name.
    return referencing.Resource.from_contents(json.loads(package.read(f"{SCHEMAS}/{name}.json")))


def violations(name, document, package, definitions):
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", document["apiVersion"])
    schema = schema_of(package, f"{document['kind'].lower()}-{group}")
    registry = definitions @ (schema @ referencing.Registry())
    validator = jsonschema.Draft202012Validator(schema.contents, registry=registry)
    for error in validator.iter_errors(document):
        yield f"{name}: {document['kind']}: {'.'.join(map(str, error.absolute_path))}: {error.message}"


def settings():
    """Every setting that a manifest names is there."""
    section, known = "", set()
    for line in (DEPLOY / "usersd.toml").read_text().splitlines():
        if found := re.fullmatch(r"\[(\w+)\]", line):
            section = found[1] + "_"
        elif found := re.match(r"(\w+) =", line):
            known.add(f"USERSD_{section}{found[1]}".upper())
    for path in [*DEPLOY.glob("*.yaml"), *DEPLOY.glob("kubernetes/*.yaml"), DEPLOY / "Dockerfile"]:
        for name in sorted(set(re.findall(r"USERSD_[A-Z_]+", path.read_text())) - known):
            yield f"{path.name}: there is no setting {name}"


def unit():
    # The program is not installed here.
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", (DEPLOY / "usersd.service").read_text(), flags=re.M)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "usersd.service"
        path.write_text(text)
        yield from command("systemd-analyze", "verify", str(path))


def promtool():
    """Rules and configuration as Prometheus itself reads them."""
    own = ROOT / "target" / "clients" / "bin" / "promtool"
    program = str(own) if own.exists() else "promtool"
    monitoring = DEPLOY / "monitoring"
    yield from command(program, "check", "rules", "--lint-fatal", str(monitoring / "alerts.yml"))
    yield from command(program, "check", "config", "--lint-fatal", str(monitoring / "prometheus.yml"))


def main():
    wrong = []
    for check in (manifests, settings, unit, promtool):
        found = list(check())
        print(f"{check.__name__}: {len(found)} wrong")
        wrong += found
    wrong += command("haproxy", "-c", "-f", str(DEPLOY / "haproxy.cfg"))
    hadolint = pathlib.Path(sys.executable).with_name("hadolint")
    wrong += command(str(hadolint), str(DEPLOY / "Dockerfile"))
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
