"""Fine codes of a run: what it does or waits for, in a sentence, and what to do.

The coarse state (states.py) drives the code; the fine code drives the page. A code never carries a value: it is one
of this table, whoever reports it, so a runner cannot send text through it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class Retry:
    """When an attempt lost before its program started is tried again. `attempts`: how many such losses end the run.

    waits: the code shown meanwhile. pauses: before the second, third ... attempt; the last one holds for the rest.
    """

    waits: str
    pauses: tuple[timedelta, ...]
    attempts: int


@dataclass(frozen=True)
class Code:
    """`sentence`: what is so and what it waits for. `remedy`: what to do next, empty if nothing is to be done.

    retry: the rule for an attempt that ended so before its program started; None: the run ends with it.
    """

    sentence: str
    remedy: str = ""
    retry: Retry | None = None


# A fault of one machine: soon, on another one. What the cloud has to give: for a day.
SOON = Retry("waits_to_retry", (timedelta(0), timedelta(seconds=10)), 3)
CAPACITY = Retry("waits_for_cloud", (timedelta(minutes=2), timedelta(minutes=5)), 288)
QUOTA = Retry("waits_for_quota", (timedelta(minutes=10),), 144)
# What the operator has to mend: for a day, so that a credential that ran out at night ends no run.
ACCESS = Retry("waits_for_access", (timedelta(minutes=1), timedelta(minutes=10)), 144)


_AGAIN = "Start it again. If it fails in the same way, tell the operator of this portal."
_OPERATOR = "Tell the operator of this portal: this is not a fault of the program."

CODES: dict[str, Code] = {
    # Before a machine exists.
    "created": Code("The run is recorded. Its turn comes in a moment."),
    "waits_for_conditions": Code(
        "The run waits until every condition listed is met.",
        "See the list of conditions and whose move each is.",
    ),
    "queued": Code("Every condition is met. The run waits for a machine."),
    "waits_for_capacity": Code("All machines are busy. The run starts as soon as one is free."),
    "waits_to_retry": Code("An attempt was lost before the program started. The run is tried again shortly."),
    "waits_for_cloud": Code(
        "The cloud has no machine of this size free at the moment. The run is tried again every five minutes, for a day.",
        "Nothing needs doing. A smaller size may be free sooner.",
    ),
    "waits_for_quota": Code(
        "The cloud account's quota for machines of this size is used up. The run is tried again every ten minutes, for "
        "a day.",
        "Wait for other runs to end, or ask the operator of this portal to have the quota raised.",
    ),
    "waits_for_access": Code(
        "The cloud does not let this portal start machines: its credentials have run out or lack a right. The run is "
        "tried again every ten minutes, for a day.",
        _OPERATOR,
    ),
    "launching": Code("A machine is being started."),
    # What is so is not known, and the next look asks again.
    "cloud_unreachable": Code(
        "The cloud did not answer, or answered with a fault of its own, so it is not known whether the machine is being "
        "started. The next look finds out."
    ),
    "cloud_unreadable": Code(
        "What came back from the cloud is not an answer of the form that it describes, so it is not known how the machine "
        "stands. Nothing is concluded from it, and the next look asks again.",
        "If this stays for more than an hour, tell the operator of this portal: something may stand between the portal "
        "and the cloud.",
    ),
    "cloud_throttled": Code(
        "The cloud has had too many requests and wants a pause. The portal asks it nothing for as long as the cloud said, "
        "15 minutes at the most (half a minute where it did not say), and then looks again by itself."
    ),
    "cloud_busy": Code(
        "The cloud is still at work on an earlier request for this machine or a part of it. The next look asks again."
    ),
    "look_refused": Code(
        "The cloud does not show this portal its machines: its credentials have run out, or a right is missing. The "
        "machine may be at work all the same, so nothing is concluded, and the next look asks again.",
        _OPERATOR,
    ),
    "machine_ending": Code(
        "The machine of an attempt that was lost is being removed before the next one starts."
    ),
    # While an attempt is under way; the names of phases.
    "claimed": Code("The machine has started and has called home."),
    "attesting": Code("The machine is proving what it is, and the keys are being released to it."),
    "fetching": Code("The machine is fetching the inputs."),
    "decrypting": Code("The machine is opening the inputs in its memory."),
    "running": Code("The program is running."),
    "checking": Code("The program has ended. Its output files are being looked at."),
    "sealing": Code("The outputs are being sealed and the result is being signed."),
    "uploading": Code("The sealed outputs are being handed over."),
    "done": Code("The machine has handed everything over."),
    # How it ended.
    "succeeded": Code("The program ended well, and the evidence and the signed statement were verified."),
    "program_failed": Code(
        "The program raised an error, or ended with a code other than 0.",
        "Mend the program at the line shown and submit it again.",
    ),
    "timed_out": Code(
        "The program used more time than a run may have and was stopped.",
        "Make it faster, or use less data, and submit it again.",
    ),
    "out_of_memory": Code(
        "The program used more memory than a run may have and was stopped.",
        "Read the data in pieces, or keep fewer columns, and submit it again.",
    ),
    "disk_full": Code(
        "The program wrote more than a run may write and was stopped.",
        "Write smaller or fewer files and submit it again.",
    ),
    "outputs_not_acceptable": Code(
        "The program left outputs that cannot be taken: a link, a special file, an unsafe name, too many files or "
        "too many bytes.",
        "Write plain files with simple names into strongroom.outputs() and submit it again.",
    ),
    "outputs_not_a_file": Code(
        "The program left an output that is not a plain file: a link, a device, a socket or a pipe.",
        "Write plain files only and submit it again.",
    ),
    "outputs_hard_link": Code(
        "The program left an output with a second name (a hard link).",
        "Copy the file instead and submit it again.",
    ),
    "outputs_unsafe_name": Code(
        "The program left an output whose name is not safe on every system.",
        "Use letters, digits, dots, hyphens and underscores in names and submit it again.",
    ),
    "outputs_too_many": Code(
        "The program left too many output files or folders.", "Write at most 200 files and submit it again."
    ),
    "outputs_too_large": Code(
        "The outputs are larger together than a run may put out.", "Write smaller files and submit it again."
    ),
    "outputs_unreadable": Code(
        "The outputs could not be read.",
        "Do not change the permissions of outputs in the program, and submit it again.",
    ),
    "cancelled": Code("The run was stopped on request."),
    "gate_closed": Code(
        "A condition that was met is no longer met, so the run was stopped.",
        "See the reason, settle the condition, then start a new run.",
    ),
    "keys_withdrawn": Code(
        "The custodian of a dataset has taken back the key that this run had been given, so the run was stopped.",
        "See the reason, which is the key broker's own, and ask the custodian of that dataset.",
    ),
    # The attempt could not go on.
    "launch_failed": Code("The machine could not be started.", _OPERATOR, SOON),
    "cloud_rejected": Code(
        "The cloud does not accept the machine as it is set up: its image, size, subnet or account is not as it must be.",
        _OPERATOR,
    ),
    "cloud_denied": Code(
        "The cloud did not let this portal start machines, in every attempt for a day: its credentials have run out or "
        "lack a right.",
        _OPERATOR,
        ACCESS,
    ),
    "name_taken": Code(
        "Under the machine's name the cloud has something without this portal's mark: somebody else made it, or its tags "
        "were taken away. The portal leaves it alone.",
        _OPERATOR,
        SOON,
    ),
    "quota_exceeded": Code(
        "The cloud account's quota for machines of this size was used up, in every attempt for a day.",
        "Ask the operator of this portal to have the quota raised, or choose a smaller size, and start it again.",
        QUOTA,
    ),
    "capacity_missing": Code(
        "The cloud had no machine of this size free, in every attempt for a day.",
        "Choose another size, or start it again at another time.",
        CAPACITY,
    ),
    "machine_evicted": Code(
        "The cloud took the machine back while it was in use, as it may with machines at a lower price.",
        "Start it again. A run whose program has started is not repeated by itself, because it has seen the data.",
        SOON,
    ),
    "destroy_failed": Code(
        "The cloud refuses to remove the machine of an attempt that was lost, or still has it after an hour. The portal "
        "keeps asking, and starts no other machine for this run until it is gone.",
        _OPERATOR,
    ),
    "size_unknown": Code(
        "The size of machine that was chosen is not offered here any more.",
        "Start a new run with a size that is offered.",
    ),
    "never_called": Code("The machine started but never called home.", _OPERATOR, SOON),
    "runner_lost": Code(
        "The machine was lost while the program was running. The run is not repeated by itself, because the program "
        "had already seen the data.",
        _AGAIN,
        SOON,
    ),
    "attempts_exhausted": Code(
        "The machine was lost before the program started, in every attempt.", _OPERATOR
    ),
    "overdue": Code("The run took longer than any run may take and was stopped.", _AGAIN),
    "runner_error": Code("The machine met an error of its own and gave up.", _AGAIN, SOON),
    "evidence_refused": Code(
        "The machine's evidence did not satisfy the release policy of every dataset, so no key was released.",
        "The custodian and the operator see the failed checks in the audit log.",
    ),
    "broker_refused": Code(
        "The key broker of a custodian refused to release a key. The reason below is its own.",
        "Ask the custodian of that dataset.",
    ),
    "broker_unavailable": Code(
        "The key broker of a custodian did not answer, in every attempt, so a key could not be released.",
        "Ask the custodian whether their key broker is up, then start the run again.",
        SOON,
    ),
    "key_store_unavailable": Code(
        "The service that guards this portal's own keys did not answer, in every attempt.", _OPERATOR, SOON
    ),
    "key_unusable": Code(
        "The data key of a dataset cannot be opened by this portal, so it could not be released.",
        "The custodian must seal and upload the dataset again for this portal's key.",
    ),
    "result_refused": Code(
        "What the machine handed in as result did not verify, so it was refused.", _OPERATOR
    ),
    "outputs_broken": Code(
        "The outputs that arrived are not the ones in the signed statement, so they were refused.", _AGAIN
    ),
    "manifest_differs": Code(
        "The machine was given a manifest that does not have the stated hash.", _OPERATOR
    ),
    "input_changed": Code("An input in the object store is not the one that the manifest names.", _OPERATOR),
    "plaintext_differs": Code(
        "An input, once opened, is not the file that the custodian sealed.",
        "The custodian must seal and upload it again.",
    ),
    "seal_broken": Code(
        "An input could not be opened with the key released for it.",
        "The custodian must seal and upload it again.",
    ),
    "program_changed": Code("The stored program is not the one that was submitted.", _OPERATOR),
    "entry_missing": Code(
        "The entry point of the program is not in it.", "Submit the program again and name its entry point."
    ),
    "notebook_unreadable": Code("The notebook cannot be read.", "Open it, save it and submit it again."),
    "archive_refused": Code(
        "The zip archive cannot be unpacked safely.",
        "Pack plain files with simple names and submit it again.",
    ),
    "sandbox_refused": Code(
        "The machine has no sandbox that is really closed, so the program was not started.", _OPERATOR
    ),
    "no_memory_storage": Code(
        "The machine has no memory-backed storage, so real data would have to be written to a disk. It was not.",
        _OPERATOR,
    ),
    "no_evidence": Code(
        "The machine's environment gave no evidence of what it is, so nothing was released to it.",
        _OPERATOR,
        SOON,
    ),
    "no_hardware_protection": Code(
        "A dataset holds real personal data, and the machine has software evidence only, which protects nothing.",
        _OPERATOR,
    ),
}

# What a runner may give as the cause of giving up, and the code it becomes. Anything else is "runner_error".
_REPORTED = {
    "manifest_differs", "input_changed", "plaintext_differs", "seal_broken", "program_changed", "entry_missing",
    "notebook_unreadable", "sandbox_refused", "no_memory_storage", "no_evidence", "runner_error",
    "broker_unavailable", "key_store_unavailable",
}  # fmt: skip
# Shown while a queued run waits for its next attempt, and while nothing certain is known of its machine.
WAITS = frozenset(code.retry.waits for code in CODES.values() if code.retry is not None)
UNSETTLED = frozenset(
    {"cloud_unreachable", "cloud_unreadable", "cloud_throttled", "cloud_busy", "look_refused"}
)

EXIT_CODES = {
    "succeeded": "succeeded",
    "failed": "program_failed",
    "timed_out": "timed_out",
    "out_of_memory": "out_of_memory",
    "disk_full": "disk_full",
    "cancelled": "cancelled",
    "refused": "outputs_not_acceptable",
}


def describe(code: str) -> Code:
    """The sentence for `code`; one that is not in the table is named as such, never hidden."""
    return CODES.get(code) or Code(
        f"The run is at a step that this page has no sentence for ({code}).", _OPERATOR
    )


def ended(exit_class: str, refusal: str = "") -> str:
    """The code for how a program ended; `refusal`: why its outputs were refused, as the supervisor names it."""
    if exit_class == "refused" and f"outputs_{refusal}" in CODES:
        return f"outputs_{refusal}"
    return EXIT_CODES[exit_class]


def reported(code: str) -> str:
    """The code of this table for what a runner reports when it gives up."""
    if code in _REPORTED:
        return code
    if code.startswith("archive_"):
        return "archive_refused"
    return "sandbox_refused" if code.startswith("sandbox_") else "runner_error"
