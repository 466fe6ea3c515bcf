"""Runs one program in the sandbox and prints what came of it: so that a test can do it as another user.

driver.py SPEC_JSON   or   driver.py --choose   or   driver.py --self-test KIND
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[4]))

from workers.runner.sandbox import Kind, Limits, RunSpec, SandboxRefused, choose, run, self_test


def main() -> None:
    """Print one JSON object."""
    try:
        if sys.argv[1] == "--choose":
            answer = {"kind": choose().kind}
        elif sys.argv[1] == "--self-test":
            answer = {"probes": [dataclasses.asdict(probe) for probe in self_test(Kind(sys.argv[2]))]}
        else:
            given = json.loads(sys.argv[1])
            spec = RunSpec(
                argv=given["argv"],
                read_only=[Path(folder) for folder in given["read_only"]],
                env=given["env"],
                **{name: Path(given[name]) for name in ("workdir", "inputs", "outputs", "log_path")},
            )
            answer = dataclasses.asdict(run(spec, Limits(**given["limits"]), kind=Kind(given["kind"])))
    except SandboxRefused as refusal:
        answer = {"refused": refusal.code, "sentence": refusal.sentence, "remedy": refusal.remedy}
    print(json.dumps(answer, default=str))


if __name__ == "__main__":
    main()
