"""The examples in other languages use only what the contract describes."""

import re
from pathlib import Path

import orjson

from service.contract.schema import schema_id
from tests.support.published_contract import ASYNCAPI, SCHEMAS

NODE = Path(__file__).parents[3] / "deploy" / "examples" / "node-consumer"


def test_the_consumer_in_node_reads_fields_and_headers_that_there_are() -> None:
    source = (NODE / "consumer.js").read_text("utf-8")
    handlers = re.findall(r"^  (\w+): \(\{ data \}\) => \{\n(.*?)^  \},$", source, re.DOTALL | re.MULTILINE)

    assert len(handlers) == 4
    for name, body in handlers:
        schema = SCHEMAS[name]
        fields = set(schema["$defs"][schema["properties"]["data"]["$ref"].rpartition("/")[2]]["properties"])
        used = set(re.findall(r"data\.(\w+)", body)) | set(re.findall(r"money\(data, '(\w+)'\)", body))
        assert used, name
        assert used <= fields
    headers = set(re.findall(r"header\('([^']+)'\)", source))
    assert headers == {"ce_id", "ce_dataschema"}
    assert headers <= set(ASYNCAPI["components"]["schemas"]["EventHeaders"]["required"])
    assert set(re.findall(r"event\.(\w+)", source)) <= set(SCHEMAS["other"]["properties"])


def test_the_consumer_in_node_finds_the_schemas_name_in_the_header() -> None:
    source = (NODE / "consumer.js").read_text("utf-8")

    assert "const [, , , , schema] = header('ce_dataschema').split(':')" in source
    assert schema_id("payment_intent").split(":")[4:] == ["payment_intent"]


def test_its_dependencies_are_pinned() -> None:
    package = orjson.loads((NODE / "package.json").read_bytes())

    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in package["dependencies"].values())
    assert sorted(path.name for path in NODE.iterdir() if path.name != "node_modules") == [
        "README.md",
        "consumer.js",
        "package.json",
    ]
