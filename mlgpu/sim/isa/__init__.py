"""What each PTX instruction does, one file per family."""
