"""Commands that serve every task: what a run is, how good and how fast it is, and what the machine has."""
