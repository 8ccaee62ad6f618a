"""the pages, one file each, and every visible string."""
