"""The extra `neural`: COMET and BLEURT scores. Nothing else in the package imports it."""
