"""Running: trains trials in this process or on Ray, and keeps their files."""
