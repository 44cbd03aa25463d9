"""From text to clusters of sentences."""
