"""A table as the runner lays it out: a folder with index.json and the data."""

import json

import pytest

DICTIONARY = {
    "fields": [
        {"name": "age", "type": "integer", "constraints": {"minimum": 0, "maximum": 110, "required": True}},
        {"name": "dose", "type": "number", "constraints": {"minimum": 0}},
        {"name": "arm", "type": "string", "constraints": {"enum": ["a", "b"]}},
        {"name": "seen", "type": "date", "constraints": {"minimum": "2020-01-01"}},
        {"name": "fit", "type": "boolean", "sensitive": True},
    ],
    "missingValues": ["", "NA"],
}
HEADER = "age,dose,arm,seen,fit\n"
ROW = "40,1.5,a,2021-02-03,true\n"


@pytest.fixture
def laid_out(tmp_path, monkeypatch):
    """Write the bytes of a data file where a run would find it; returns the folder of the outputs."""

    def write(content: bytes, *, media_type="text/csv", dictionary=DICTIONARY):
        inputs, outputs = tmp_path / "inputs", tmp_path / "outputs"
        inputs.mkdir(exist_ok=True)
        outputs.mkdir(exist_ok=True)
        path = inputs / ("data.csv" if media_type == "text/csv" else "data.parquet")
        path.write_bytes(content)
        entry = {"path": str(path), "media_type": media_type, "dictionary": dictionary}
        (inputs / "index.json").write_text(json.dumps({"data": entry}))
        monkeypatch.setenv("STRONGROOM_INPUTS", str(inputs))
        monkeypatch.setenv("STRONGROOM_OUTPUTS", str(outputs))
        return outputs

    return write
