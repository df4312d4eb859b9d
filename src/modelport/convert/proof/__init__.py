"""Whether an export gives the answers of its source: on the rows, and on rows made to hurt."""
