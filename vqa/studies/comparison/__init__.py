"""Systems on the same questions: compared, and averaged."""
