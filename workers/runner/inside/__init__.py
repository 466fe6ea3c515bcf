"""What runs inside the sandbox, beside the untrusted program. It is no more trusted than the program."""
