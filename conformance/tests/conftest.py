"""Two profiles for Hypothesis: the default draws the same examples in every run, `HYPOTHESIS_PROFILE=thorough` new ones."""

import os

from hypothesis import HealthCheck, settings

# The first call of a framework is slow and the machine may be busy: neither says anything about the code.
COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", max_examples=300, derandomize=True, database=None, **COMMON)
settings.register_profile("thorough", max_examples=5000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
