"""The gateway: turns routes, keys and grants into Envoy configuration, applies it and confirms what Envoy serves."""
