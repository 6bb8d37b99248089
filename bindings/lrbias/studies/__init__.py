"""Studies that are reproduced: their runs, the claims that they test, and the evidence."""
