"""The SQL of governance, one module per noun. Every function works on the connection of its caller and never commits."""
