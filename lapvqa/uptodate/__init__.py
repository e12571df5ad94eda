"""uptodate."""
