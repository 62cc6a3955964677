"""Writers of scene files for tests: faithful files with known values, and damaged ones."""
