"""Settings of all tests."""

from hypothesis import settings

# A loaded machine is no reason to fail, and a failure must repeat.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
