"""The runner's images: what is built, and how. Nothing here runs in the portal."""
