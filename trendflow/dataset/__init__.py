"""What many runs say together: tables of feature vectors and their health."""
