"""What `tff-autoprune COMMAND` runs: a module each, with its flags (`FLAGS`) and its `main`."""
