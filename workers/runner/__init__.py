"""The supervisor inside the trusted environment. Imports `strongroom` and the standard library, never Django."""
