"""What the runner can run on a custodian's behalf. Runs inside the sandbox; the only place that imports sdv and its kin."""
