"""Results files in every layout that others write: read (`read`, `match`) and written (`write`)."""
