"""`strongroom.load` and `strongroom.outputs`: the same two lines of code in both stages.

Inside a run both read what the runner laid out. Elsewhere `load` fetches the stand-in data that the person may use,
through the portal they signed in to with `strongroom login`, and keeps them in a cache by hash.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strongroom.errors import StrongroomError

if TYPE_CHECKING:
    import pandas

CSV = "text/csv"


class DatasetNotGranted(StrongroomError):
    """The program asks for a dataset that was not chosen when it was submitted, or that the person may not use."""


def path(name: str) -> Path:
    """The file of the dataset `name`: CSV or Parquet. Raises DatasetNotGranted."""
    return Path(_entry(name)["path"])


def dictionary(name: str) -> dict[str, Any]:
    """The data dictionary (Table Schema) of the dataset `name`. Raises DatasetNotGranted."""
    return dict(_entry(name)["dictionary"])


def load(name: str) -> pandas.DataFrame:
    """The dataset `name` as a pandas DataFrame, with the types of its data dictionary.

    Stage 1: the stand-in data. Stage 2: the real data. Whole numbers with missing values become floating point, as
    pandas does. Raises DatasetNotGranted; ImportError if pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            'strongroom.load needs pandas: pip install "strongroom[pandas]", or use strongroom.data.path'
        ) from error
    entry = _entry(name)
    if entry["media_type"] != CSV:
        return pd.read_parquet(entry["path"])
    fields = entry["dictionary"]["fields"]
    missing = list(entry["dictionary"].get("missingValues", [""]))
    text = {field["name"]: str for field in fields if field["type"] == "string"}
    dates = [field["name"] for field in fields if field["type"] in ("date", "datetime")]
    return pd.read_csv(
        entry["path"],
        dtype=text,
        parse_dates=dates,
        na_values=missing,
        keep_default_na=False,
        float_precision="round_trip",
        encoding="utf-8-sig",
    )


def outputs() -> Path:
    """The folder whose files are the program's outputs. Outside a run: ./outputs, made if need be."""
    folder = Path(os.environ.get("STRONGROOM_OUTPUTS", "outputs"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def stage() -> int:
    """1 on stand-in data (also outside a run), 2 on the real data."""
    return int(os.environ.get("STRONGROOM_STAGE", "1"))


def _entry(name: str) -> dict[str, Any]:
    inside = os.environ.get("STRONGROOM_INPUTS")
    if inside:
        index = json.loads((Path(inside) / "index.json").read_text(encoding="utf-8"))
        if name not in index:
            known = ", ".join(sorted(index)) or "none"
            raise DatasetNotGranted(
                f"This run reads no dataset called {name!r}. It reads: {known}. Choose the datasets when you submit the program."
            )
        return dict(index[name])
    return fetch(name)


def cache_folder() -> Path:
    """Where stand-in data are kept, by hash."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "strongroom"


def fetch(name: str) -> dict[str, Any]:
    """Download (or find in the cache) the stand-in data of `name`. Raises DatasetNotGranted, client.ApiError."""
    from strongroom.client import ApiError, Client

    client = Client.signed_in()
    try:
        release = client.get(f"/datasets/{name}/stand-in")
    except ApiError as error:
        if error.status == 404:
            raise DatasetNotGranted(
                f"There is no dataset called {name!r} with stand-in data that you may use. It may need access to be approved, or its custodian to release stand-in data."
            ) from None
        raise
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = folder / f"{release['sha256']}.csv"
    if not target.exists() or _sha256(target) != release["sha256"]:
        client.download(f"/releases/{release['id']}/data", target, sha256=release["sha256"])
    return {"path": str(target), "media_type": release["media_type"], "dictionary": release["dictionary"]}


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
