"""The published import paths. Each module re-exports from where the thing is defined."""
