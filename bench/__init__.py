"""Speed of timewait beside other load generators; `make bench`."""
