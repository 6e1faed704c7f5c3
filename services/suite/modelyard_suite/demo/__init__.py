"""`modelyard demo`: one story through the whole product, on real parts."""
