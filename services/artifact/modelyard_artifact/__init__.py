"""The artifact service: content-addressed bytes, verified on the way in, immutable after commit."""
