"""What is shown on a lab: the demo and the end-to-end run, with the trace of a build and the build watcher."""
