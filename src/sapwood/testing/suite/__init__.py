"""The cases of :mod:`sapwood.testing.conformance`, a module for each side of the contract."""
