"""Which planted damage a gate on a base fails: the dose-response of its limits."""
