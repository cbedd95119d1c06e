"""Files of records, one module per format; how files are found, opened and published."""
