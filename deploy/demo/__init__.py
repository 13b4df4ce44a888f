"""The demo: its image, and a local Kubernetes cluster that runs it."""
