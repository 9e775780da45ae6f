"""`ducto demo`: a gateway, a provider simulator and real SDK clients on loopback, and an audit of the books."""
