"""The contract as files: an AsyncAPI document, and a JSON Schema for each object type."""

import json
from collections.abc import Mapping
from pathlib import Path

from service.contract.asyncapi import asyncapi
from service.contract.schema import SCHEMA_NAMES, Json, schema
from service.records import Topics


def contract_files(topics: Topics) -> Mapping[str, str]:
    """Path → text of every file of the contract, for the topics under a prefix."""
    schemas = {f"schemas/{name}.json": as_text(schema(name)) for name in sorted(SCHEMA_NAMES)}
    return {"asyncapi.json": as_text(asyncapi(topics)), **schemas}


def write_contract(folder: Path, topics: Topics) -> list[Path]:
    """Write the files of the contract into a folder, over those that are there; says which."""
    written = []
    for name, text in contract_files(topics).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def as_text(document: Json) -> str:
    """A document as people read it, the same at every run: fields stay in the order in which the types declare them."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
