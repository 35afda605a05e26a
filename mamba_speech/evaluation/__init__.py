"""Metrics and statistics of every task: error rates, scores, bootstrap intervals and tables. No networks."""
