"""What a platform showed about videos at given times: importers, normalised tables, import report."""
