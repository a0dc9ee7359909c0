"""PTX text made into data."""
