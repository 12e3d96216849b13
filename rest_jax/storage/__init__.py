"""Files that are whole or not there, folders that one run owns, buckets."""
