"""The three services in the foreground: what the containers run."""
