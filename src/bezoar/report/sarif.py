"""A detection for code-scanning pages: SARIF 2.1.0, one result per flagged image.

The format is that of OASIS,
https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html. Code-scanning pages
show at most 5,000 results of a run, so the most suspicious are written.
"""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import quote

from bezoar.report.page import shown
from bezoar.results import Detection

MAX_RESULTS = 5000
_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_RULE = {
    "id": "poisoned-image",
    "name": "PoisonedImage",
    "shortDescription": {"text": "An image that looks poisoned"},
    "fullDescription": {
        "text": "A model that is trained on this image may learn a backdoor from it. A "
        "score is a reason to look, not an accusation."
    },
    "help": {
        "text": "Look at the image on the page of the run (report.html), keep or drop "
        "it there, and write the clean set with: bezoar detect DATA --decisions "
        "decisions.json --clean CLEAN"
    },
    "defaultConfiguration": {"level": "warning"},
    "properties": {"tags": ["security", "data-poisoning"], "precision": "medium"},
}


def sarif(found: Detection, *, root: str = "", command: str = "") -> dict[str, Any]:
    """Return a detection as a SARIF log.

    Args:
        found: The detection.
        root: Folder of the set as seen from the top of the repository, for links.
        command: As it was typed.

    Returns:
        Plain values to be written as JSON.

    """
    order = found.ranks.argsort()
    worst = order[found.flagged[order]].tolist()
    verdict, provenance = found.verdict, found.provenance
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "bezoar",
                        "semanticVersion": provenance.versions.get("bezoar", ""),
                        "rules": [_RULE],
                    }
                },
                "invocations": [{"executionSuccessful": True, "commandLine": command}],
                "results": [_result(found, i, root) for i in worst[:MAX_RESULTS]],
                "columnKind": "unicodeCodePoints",
                "properties": {
                    "status": verdict.status,
                    "summary": verdict.summary,
                    "images": len(found.ids),
                    "flagged": len(worst),
                    "expectedFalseAlarms": verdict.expected_false_alarms,
                    "method": provenance.method,
                    "seed": provenance.seed,
                },
            }
        ],
    }


def _result(found: Detection, i: int, root: str) -> dict[str, Any]:
    id_, n = found.ids[i], len(found.ids)
    key = hashlib.blake2b(id_.encode(errors="surrogatepass"), digest_size=16)
    rank = int(found.ranks[i])
    text = f"{shown(id_)} looks poisoned: {found.reasons[i] or 'flagged'}"
    properties: dict[str, Any] = {"score": found.scores[i].item(), "rank": rank}
    if found.p_values is not None and found.p_values[i].isfinite():
        properties["pValue"] = found.p_values[i].item()
    return {
        "ruleId": _RULE["id"],
        "ruleIndex": 0,
        "level": "warning",
        "message": {"text": text},
        "rank": round(100 * (1 - (rank - 1) / max(n, 1)), 3),
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": _uri(id_, root)},
                    "region": {"startLine": 1},
                }
            }
        ],
        "partialFingerprints": {"imageId/v1": key.hexdigest()},
        "properties": properties,
    }


def _uri(id_: str, root: str) -> str:
    # A name that starts like "C:" or "//" must stay a path: quote() leaves only "/".
    path = "/".join(part for part in f"{root}/{id_}".split("/") if part)
    return quote(path, safe="/", errors="surrogatepass")
