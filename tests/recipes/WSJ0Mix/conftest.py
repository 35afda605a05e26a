"""The separation fixtures of tests/support."""

from tests.support.separation_fixtures import kind, singles, speech, trained, tree

__all__ = ["kind", "singles", "speech", "trained", "tree"]
