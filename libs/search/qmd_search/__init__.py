"""QMD's hybrid search in Python: FTS5, vectors, rank fusion, collections, IR metrics."""
