"""Learning from scans of which less is known than masks."""
