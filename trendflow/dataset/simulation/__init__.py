"""SYNTHETIC corpora in the formats of real ones: for demonstrations, smoke tests and benchmarks, and for nothing else.

Every id, source, release and title begins with SYNTHETIC_; a build refuses such inputs unless asked, and all that is
made of them says so.
"""
