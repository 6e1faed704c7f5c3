"""The chassis that every Modelyard service stands on."""
