"""For the tests of applications, and of adapters: :mod:`sapwood.testing.conformance` is the specification of these."""
