"""The run engine: everything that the portal does by itself about runs. What people do is in jobs.actions.

create_run, create_profile_run, create_release_run   a run comes into being
advance                                              the one function that moves it
runner, result                                       what its machine asks and says
open_outputs, build_package                          what becomes of its outputs
ask_brokers                                          whether custodians' own key brokers still permit their keys
"""

from apps.jobs.engine.brokers import ask_brokers
from apps.jobs.engine.creation import create_profile_run, create_release_run, create_run
from apps.jobs.engine.manifests import freeze_manifest, runner_image
from apps.jobs.engine.outputs import open_outputs
from apps.jobs.engine.packages import build_package
from apps.jobs.engine.steps import advance

__all__ = [
    "advance",
    "ask_brokers",
    "build_package",
    "create_profile_run",
    "create_release_run",
    "create_run",
    "freeze_manifest",
    "open_outputs",
    "runner_image",
]
