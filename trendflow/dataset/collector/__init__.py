"""The live collector: snapshots of tracked videos from the YouTube Data API at fixed times after the first one."""
