"""Long recordings for testing a spotter: real clips of its words among other people's speech, clean and in noise."""
