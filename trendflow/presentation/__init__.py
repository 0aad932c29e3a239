"""What people look at: previews for the asset graph and the self-contained report of one run."""
