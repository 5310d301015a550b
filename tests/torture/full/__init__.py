"""`./run torture full`: as many jobs waiting as may wait, beside a million that are completed."""
