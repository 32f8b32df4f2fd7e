"""`vqa bench …`: this machine in reading, scoring, extraction and training, beside baselines and bounds."""
