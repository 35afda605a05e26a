"""The rows of RESULTS.md: one file each in docs/measured, the page made from them, and the command that repeats one."""
