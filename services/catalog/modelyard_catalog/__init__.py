"""The catalog service: what exists, under which name, in which version, and which alias points where."""
