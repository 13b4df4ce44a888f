"""Real servers on this machine, without containers: for development, demos and tests."""
