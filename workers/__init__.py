"""Everything that works beside the web process: tasks, backends, the runner and its programs."""
