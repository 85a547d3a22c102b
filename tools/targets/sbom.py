"""What a static file is made of, as CycloneDX 1.6 in JSON.

Little: no libc and no library of others is linked, so there is pywg, and what the compiler brings.
Invariant: the same files and the same commit give the same bytes.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

FORMAT = "1.6"
# Of uuid.uuid5: the serial number says which files it is about, and nothing else.
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "pywg.sbom")
ZIG_SITE = "https://ziglang.org/"
MIT = [{"license": {"id": "MIT"}}]


def zig_version(zig: Sequence[str]) -> str:
    told = subprocess.run([*zig, "version"], capture_output=True, text=True, check=True)
    return told.stdout.strip()


def describe(version: str, zig: str, files: Mapping[str, str], seconds: int) -> str:
    """The document: `files` are names with their SHA-256 in hex, `seconds` the time of the commit
    (Unix)."""
    compiled_in = [_of_zig("zig-std", zig), _of_zig("zig-compiler-rt", zig)]
    built = [_file(name, digest) for name, digest in sorted(files.items())]
    root = {
        "type": "application",
        "bom-ref": f"pywgd@{version}",
        "name": "pywgd",
        "version": version,
        "description": "Userspace WireGuard daemon, linked statically without a libc",
        "licenses": MIT,
        "purl": f"pkg:pypi/pywg-tunnel@{version}",
    }
    references = [component["bom-ref"] for component in (*compiled_in, *built)]
    document = {
        "$schema": f"http://cyclonedx.org/schema/bom-{FORMAT}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": FORMAT,
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, repr(sorted(files.items())))}",
        "version": 1,
        "metadata": {"timestamp": _timestamp(seconds), "component": root},
        "components": [*compiled_in, *built],
        "dependencies": [
            {"ref": root["bom-ref"], "dependsOn": references},
            *({"ref": reference, "dependsOn": []} for reference in references),
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _of_zig(name: str, version: str) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": f"{name}@{version}",
        "name": name,
        "version": version,
        "licenses": MIT,
        "purl": f"pkg:generic/{name}@{version}",
        "externalReferences": [{"type": "website", "url": ZIG_SITE}],
    }


def _file(name: str, digest: str) -> dict[str, Any]:
    return {
        "type": "file",
        "bom-ref": name,
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "licenses": MIT,
    }


def _timestamp(seconds: int) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
