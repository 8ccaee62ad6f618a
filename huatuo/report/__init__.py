"""the report of a study: figures, plain sentences, methods paragraph, HTML and CSV."""
