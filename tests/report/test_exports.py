"""Exports have the shapes that the other tools publish."""

import json
import math
from dataclasses import replace
from urllib.parse import unquote

import datasets
import pytest
import torch

from bezoar.errors import InputError
from bezoar.report import add_columns, cleanlab, fiftyone, huggingface, sarif
from bezoar.report.sarif import MAX_RESULTS
from bezoar.results import Detection
from tests.report.conftest import HOSTILE
from tests.report.test_sections import big

# What the schema of SARIF 2.1.0 allows in the objects that we write, and demands.
SARIF = {
    "log": ({"$schema", "version", "runs", "properties"}, {"version", "runs"}),
    "run": (
        {"tool", "invocations", "results", "columnKind", "properties"},
        {"tool"},
    ),
    "driver": (
        {"name", "version", "semanticVersion", "informationUri", "rules"},
        {"name"},
    ),
    "rule": (
        {
            *("id", "name", "shortDescription", "fullDescription", "help"),
            *("helpUri", "defaultConfiguration", "properties"),
        },
        {"id"},
    ),
    "result": (
        {
            *("ruleId", "ruleIndex", "level", "kind", "message", "rank", "locations"),
            *("partialFingerprints", "properties"),
        },
        {"message"},
    ),
    "physicalLocation": ({"artifactLocation", "region"}, set()),
    "artifactLocation": ({"uri", "uriBaseId"}, set()),
    "invocation": ({"executionSuccessful", "commandLine"}, {"executionSuccessful"}),
}


def fits(kind: str, value: dict[str, object]) -> None:
    allowed, demanded = SARIF[kind]
    assert demanded <= value.keys() <= allowed, kind


def test_sarif_has_the_published_shape(found: Detection) -> None:
    log = json.loads(json.dumps(sarif(found, root="data/photos", command="bezoar x")))
    fits("log", log)
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-2.1.0.json")
    (run,) = log["runs"]
    fits("run", run)
    driver = run["tool"]["driver"]
    fits("driver", driver)
    fits("invocation", run["invocations"][0])
    for rule in driver["rules"]:
        fits("rule", rule)
        assert rule["shortDescription"].keys() == {"text"}
    assert len(run["results"]) == 3
    for result in run["results"]:
        fits("result", result)
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in {"none", "note", "warning", "error"}
        assert 0 <= result["rank"] <= 100
        (location,) = result["locations"]
        place = location["physicalLocation"]
        fits("physicalLocation", place)
        fits("artifactLocation", place["artifactLocation"])
        assert place["region"]["startLine"] >= 1
        assert all(isinstance(v, str) for v in result["partialFingerprints"].values())


def test_sarif_links_are_relative_and_lead_to_the_files(found: Detection) -> None:
    def uris(root: str) -> list[str]:
        results = sarif(found, root=root)["runs"][0]["results"]
        return [
            r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
            for r in results
        ]

    names = [unquote(uri) for uri in uris("data/photos/")]
    assert names == [f"data/photos/{n}" for n in ("dog/7.png", "dog/4.png", HOSTILE[1])]
    for uri in uris(""):
        assert uri.isascii()
        assert not set(' <>"\\:') & set(uri)
    assert "\u202e" not in json.dumps(sarif(found), ensure_ascii=False)


def test_sarif_of_many_images_holds_the_most_suspicious() -> None:
    results = sarif(big(7000, 6000))["runs"][0]["results"]
    assert len(results) == MAX_RESULTS
    assert "0005999.png" in results[0]["message"]["text"]


def test_sarif_of_a_clean_set_has_no_results(found: Detection) -> None:
    clean = replace(found, flagged=torch.zeros(12, dtype=torch.bool))
    assert sarif(clean)["runs"][0]["results"] == []


def test_fiftyone_has_the_shape_that_from_json_reads(found: Detection) -> None:
    scores = found.scores.clone()
    scores[5] = math.nan
    told = json.loads(
        json.dumps(fiftyone(replace(found, scores=scores)), allow_nan=False)
    )
    assert told["media_type"] == "image"
    assert told["num_samples"] == len(told["samples"]) == 12
    declared = told["sample_fields"]
    assert all(kind.startswith("fiftyone.core.fields.") for kind in declared.values())
    plain = {"filepath", "tags", "metadata", "_media_type"}
    types = {"StringField": str, "FloatField": float, "IntField": int}
    types |= {"BooleanField": bool, "Classification)": dict}
    for sample in told["samples"]:
        assert sample.keys() - plain == declared.keys()
        for name, kind in declared.items():
            value = sample[name]
            assert value is None or type(value) is types[kind.rpartition(".")[2]], name
        assert sample["ground_truth"].keys() == {"_cls", "tags", "label"}
    flagged = [s["filepath"] for s in told["samples"] if "poison" in s["tags"]]
    assert flagged == [found.ids[1], "dog/4.png", "dog/7.png"]
    assert fiftyone(found, root="/a")["samples"][4]["filepath"] == "/a/dog/4.png"


def test_fiftyone_without_labels_declares_none() -> None:
    told = fiftyone(big(3, 1))
    assert "ground_truth" not in told["sample_fields"]
    assert "ground_truth" not in told["samples"][0]


def test_cleanlab_scores_are_low_for_what_is_suspicious(found: Detection) -> None:
    told = cleanlab(
        replace(found, columns={"predicted": torch.tensor([0.0] * 12)})
    )  # fmt: skip
    assert set(told) == {
        *("id", "is_poison_issue", "poison_score", "given_label", "predicted_label"),
    }
    score, flagged = told["poison_score"], told["is_poison_issue"]
    assert isinstance(score, torch.Tensor)
    assert isinstance(flagged, torch.Tensor)
    assert score.min() == 0
    assert score.max() == 1
    assert score[flagged].max() < score[~flagged].min()
    assert score.argsort().tolist() == found.scores.argsort(descending=True).tolist()
    assert told["given_label"][1] == "<b>dog</b>"


def test_a_hugging_face_set_gets_columns_and_keeps_its_own(found: Detection) -> None:
    ids = [*reversed(found.ids), "broken.png"]
    own = datasets.Dataset.from_dict({"label": list(range(13))})
    told = add_columns(own, found, ids=ids)
    assert own.column_names == ["label"]
    assert told.column_names[0] == "label"
    assert told["bezoar_rank"][:12] == found.ranks.tolist()[::-1]
    assert told["bezoar_flagged"][4] is True  # dog/7.png
    assert told[12]["bezoar_score"] is None
    alone = huggingface(found)
    assert alone["id"][:] == list(found.ids)
    assert alone["bezoar_p_value"][0] == pytest.approx(1.0)


def test_columns_are_refused_where_rows_do_not_fit(found: Detection) -> None:
    own = datasets.Dataset.from_dict({"label": list(range(12))})
    with pytest.raises(InputError, match="each of 12 rows, got 1"):
        add_columns(own, found, ids=["a"] * 12)
    with pytest.raises(InputError, match="the set that was scanned"):
        add_columns(own, found, ids=[str(i) for i in range(12)])
    twice = add_columns(own, found, ids=found.ids)
    with pytest.raises(InputError, match="remove them first"):
        add_columns(twice, found, ids=found.ids)
