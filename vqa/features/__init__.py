"""Images to features: encoders, the cache file, extraction, and the table that training gathers from."""
