"""Training of the embedded target and of DFlash drafts."""
