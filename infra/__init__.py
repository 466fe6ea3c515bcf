"""What runs Strongroom: the embedded stack, the demo, and the files for growing it. Imports nothing of the portal."""
