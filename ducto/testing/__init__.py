"""What our own tests use and ship: the conformance kit for stores, a provider simulator, a clock to move by hand.

Nothing is imported here, so that a test takes only what it names: `ducto.testing.conformance`,
`ducto.testing.simulator`, `ducto.testing.clock`, `ducto.testing.serving`.
"""
