"""Results to and from disk: parquet, JSON and safetensors, atomic, never a pickle."""

from bezoar.storage.detections import (
    check_column_names,
    load_detection,
    save_detection,
)
from bezoar.storage.diagnoses import load_diagnosis, plain_diagnosis, save_diagnosis
from bezoar.storage.plain import as_plain, read_json, read_object, write_json
from bezoar.storage.purifications import (
    load_purification,
    load_purification_report,
    save_purification,
)
from bezoar.storage.repairs import load_repair, save_repair
from bezoar.storage.runs import RunLock, write_run
from bezoar.storage.tables import Column, Table, read_table, write_table

__all__ = [
    "Column",
    "RunLock",
    "Table",
    "as_plain",
    "check_column_names",
    "load_detection",
    "load_diagnosis",
    "load_purification",
    "load_purification_report",
    "load_repair",
    "plain_diagnosis",
    "read_json",
    "read_object",
    "read_table",
    "save_detection",
    "save_diagnosis",
    "save_purification",
    "save_repair",
    "write_json",
    "write_run",
    "write_table",
]
