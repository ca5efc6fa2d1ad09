"""How the property tests run: no deadline (the machine may be busy), the same examples in every run."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "qrs", deadline=None, derandomize=True, max_examples=40, suppress_health_check=list(HealthCheck)
)
settings.load_profile("qrs")
