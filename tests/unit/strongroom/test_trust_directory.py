"""A trust directory of one's own: anchors of made-up authorities are marked, and refused unless somebody asks for them."""

from __future__ import annotations

import json

import pytest

from strongroom.errors import FormatError
from strongroom.evidence import trust
from tests.fakes.launcher import trust_folder
from tests.unit.strongroom.evidence import authority_amd as amd


def test_test_anchors_are_refused(tmp_path):
    folder = trust_folder(tmp_path, *amd.anchors())
    with pytest.raises(FormatError, match="marked as a test authority"):
        trust.read(folder)
    found = trust.read(folder, allow_test=True)
    assert len(found) == len(amd.anchors()) and all(anchor.test for anchor in found)


def test_real_anchors_are_not_marked(tmp_path):
    assert trust.shipped() and not any(anchor.test for anchor in trust.shipped())
    assert not any(anchor.test for anchor in trust.read(trust_folder(tmp_path, *amd.anchors(), test=False)))


@pytest.mark.parametrize("value", ["true", 1, None])
def test_the_mark_is_a_truth_value(tmp_path, value):
    folder = trust_folder(tmp_path, *amd.anchors())
    document = json.loads((folder / "anchors.json").read_text())
    document["anchors"][0]["test"] = value
    (folder / "anchors.json").write_text(json.dumps(document))
    with pytest.raises(FormatError):
        trust.read(folder, allow_test=True)
